"""The DICOM leaf against real clients on real sockets; the core's side of the ports is `world`."""
