from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FlushCapturesRequest(_message.Message):
    __slots__ = ("timeout_seconds",)
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    timeout_seconds: float
    def __init__(self, timeout_seconds: _Optional[float] = ...) -> None: ...

class FlushCapturesResponse(_message.Message):
    __slots__ = ("delivered",)
    DELIVERED_FIELD_NUMBER: _ClassVar[int]
    delivered: bool
    def __init__(self, delivered: _Optional[bool] = ...) -> None: ...

class SwapModelRequest(_message.Message):
    __slots__ = ("name", "url")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...

class RollBackModelRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class SwapModelResponse(_message.Message):
    __slots__ = ("name", "old", "new", "comparison", "watch_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    NEW_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    WATCH_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    old: Package
    new: Package
    comparison: Comparison
    watch_seconds: float
    def __init__(self, name: _Optional[str] = ..., old: _Optional[_Union[Package, _Mapping]] = ..., new: _Optional[_Union[Package, _Mapping]] = ..., comparison: _Optional[_Union[Comparison, _Mapping]] = ..., watch_seconds: _Optional[float] = ...) -> None: ...

class Package(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("source", "inputs", "old_seconds", "new_seconds", "outputs")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    OLD_SECONDS_FIELD_NUMBER: _ClassVar[int]
    NEW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    source: str
    inputs: int
    old_seconds: float
    new_seconds: float
    outputs: _containers.RepeatedCompositeFieldContainer[OutputComparison]
    def __init__(self, source: _Optional[str] = ..., inputs: _Optional[int] = ..., old_seconds: _Optional[float] = ..., new_seconds: _Optional[float] = ..., outputs: _Optional[_Iterable[_Union[OutputComparison, _Mapping]]] = ...) -> None: ...

class OutputComparison(_message.Message):
    __slots__ = ("name", "absolute_difference", "relative_difference", "argmax_disagreement", "shapes_differ")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    ARGMAX_DISAGREEMENT_FIELD_NUMBER: _ClassVar[int]
    SHAPES_DIFFER_FIELD_NUMBER: _ClassVar[int]
    name: str
    absolute_difference: float
    relative_difference: float
    argmax_disagreement: float
    shapes_differ: int
    def __init__(self, name: _Optional[str] = ..., absolute_difference: _Optional[float] = ..., relative_difference: _Optional[float] = ..., argmax_disagreement: _Optional[float] = ..., shapes_differ: _Optional[int] = ...) -> None: ...

class GetSwapProgressRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class GetSwapProgressResponse(_message.Message):
    __slots__ = ("stage", "done", "total")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    stage: str
    done: int
    total: int
    def __init__(self, stage: _Optional[str] = ..., done: _Optional[int] = ..., total: _Optional[int] = ...) -> None: ...

class ListModelStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelStatusResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelStatus]
    def __init__(self, models: _Optional[_Iterable[_Union[ModelStatus, _Mapping]]] = ...) -> None: ...

class ModelStatus(_message.Message):
    __slots__ = ("name", "url", "package", "previous", "watch_seconds_left", "returned", "inferences", "failures", "total_seconds", "slowest_seconds", "last_inference")
    NAME_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    WATCH_SECONDS_LEFT_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    INFERENCES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SLOWEST_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LAST_INFERENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    url: str
    package: Package
    previous: Package
    watch_seconds_left: float
    returned: ReturnedVersion
    inferences: int
    failures: int
    total_seconds: float
    slowest_seconds: float
    last_inference: float
    def __init__(self, name: _Optional[str] = ..., url: _Optional[str] = ..., package: _Optional[_Union[Package, _Mapping]] = ..., previous: _Optional[_Union[Package, _Mapping]] = ..., watch_seconds_left: _Optional[float] = ..., returned: _Optional[_Union[ReturnedVersion, _Mapping]] = ..., inferences: _Optional[int] = ..., failures: _Optional[int] = ..., total_seconds: _Optional[float] = ..., slowest_seconds: _Optional[float] = ..., last_inference: _Optional[float] = ...) -> None: ...

class ReturnedVersion(_message.Message):
    __slots__ = ("digest", "reason", "message")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    digest: str
    reason: str
    message: str
    def __init__(self, digest: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...
