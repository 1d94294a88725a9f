"""Of the module `orthanc` that Orthanc's Python plugin gives (4.0 and later), what this project uses."""

from collections.abc import Callable

def GetConfiguration() -> str: ...
def LogError(message: str, /) -> None: ...
def LogWarning(message: str, /) -> None: ...
def LogInfo(message: str, /) -> None: ...

class ChangeType:
    DELETED: int
    NEW_INSTANCE: int
    ORTHANC_STARTED: int
    ORTHANC_STOPPED: int

class HttpMethod:
    GET: int
    POST: int
    PUT: int
    DELETE: int

class InstanceOrigin:
    DICOM_PROTOCOL: int
    REST_API: int
    PLUGIN: int

class ReceivedInstanceAction:
    KEEP_AS_IS: int

class ResourceType:
    PATIENT: int
    STUDY: int
    SERIES: int
    INSTANCE: int

class DicomInstance:
    def GetInstanceData(self) -> bytes: ...
    def GetInstanceMetadata(self, name: str, /) -> str: ...
    def GetInstanceOrigin(self) -> int: ...
    def GetInstanceRemoteAet(self) -> str: ...
    def HasInstanceMetadata(self, name: str, /) -> bool: ...

def RegisterIncomingCStoreInstanceFilter(callback: Callable[[DicomInstance], int], /) -> None: ...
def RegisterOnChangeCallback(callback: Callable[[int, int, str], None], /) -> None: ...
def RegisterOnStoredInstanceCallback(callback: Callable[[DicomInstance, str], None], /) -> None: ...
def RegisterReceivedInstanceCallback(callback: Callable[[bytes, int], tuple[int, bytes | None]], /) -> None: ...
