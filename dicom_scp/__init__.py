"""DICOM on the wire: the only place that imports pynetdicom."""
