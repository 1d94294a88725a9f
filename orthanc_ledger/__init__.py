"""The core of orthanc-ledger: a DICOM node that keeps a scan's chain of custody."""

__version__ = "0.1.0"
