"""Every refusal Lightkeeper can give: one tree, one reason code a leaf.

A concrete error has a `reason` (stable, upper snake case; scripts and dashboards match on it) and a `next_step` (what
the person at the device does now). The instance carries the message and the facts (names, sizes, expected and given).
Nothing here knows gRPC: `transport/status.py` maps the second level of this tree to status codes, `cli` maps it to
exit codes, and `docs/errors.md` is generated from it.

    AgentError
    |-- ConfigurationError      the configuration file cannot be used; the agent does not start
    |-- SocketError             the socket path cannot be served; the agent does not start
    |-- InvalidRequest          the caller sent something that no retry will make right
    |   `-- InvalidTensor       ... about one tensor
    |       `-- SharedMemoryRefused
    |-- OutOfRange
    |-- NotFound
    |-- AlreadyExists
    |-- ResourcesExhausted      not enough of something right now; a later try may pass
    |-- DestinationUnusable     captures cannot go where the configuration sends them
    |-- DeliveryFailed          captures do not arrive right now; they wait in the spool, and no call ends with it
    |-- PackageRefused          the package can't be trusted or can't run here
    |   |-- SignatureRefused    ... because of its signature or certificates
    |   |-- ContentRefused      ... because its files are not what was signed
    |   `-- CannotRunHere       ... because of this device or this agent
    |-- SwapRefused             a new version may not take the place of the loaded one, or may not keep it
    |-- DeploymentFailed        a deployment of the fleet cannot be done; its result says so
    |-- SigningError            a package or authority could not be made
    |-- CommandError            a command line cannot do what it was asked to
    |-- ReadingError            captures that were written cannot be read back
    |-- HubUnusable             the hub cannot start, or a command cannot use it
    |-- HubRefusal              the hub refuses a call; `hub/status.py` has the AWS service's code for each
    |   |-- CallInvalid             ... that no retry will make right
    |   |-- CallUnreadable          ... whose bytes are not what the protocol sends
    |   |-- CallerUnproven          ... whose signature proves nobody
    |   |-- AccessRefused           ... that this caller may not make
    |   |   `-- CredentialsRefused    ... a device's, for credentials
    |   |-- ResourceMissing         ... about something that is not there
    |   |-- ResourceBusy            ... about something that is in use, or there already
    |   |-- ResourceConflict        ... that does not fit the state something is in
    |   |-- ResourceLimit           ... for more of something than there may be
    |   `-- HubBusy                 ... just now; a later try may pass
    |-- JobFailed               the work of a job of the hub cannot be done
    |   `-- JobInterrupted          ... this time; a later attempt may do it
    |-- InternalError           a fault of the agent or of a model, not of the caller
    |-- NotImplementedHere      a method this build does not offer
    |-- Unavailable             the agent is stopping, or cannot be reached
    `-- Unauthenticated         the caller of a local call does not prove that it may call
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class AgentError(Exception):
    """The root of every refusal. Abstract classes have an empty `reason`; only leaves are raised."""

    reason: ClassVar[str] = ""
    next_step: ClassVar[str] = ""

    def __init__(self, message: str, **facts: object) -> None:
        """Keep the message and the facts; facts become text, as they travel in `google.rpc.ErrorInfo`."""
        super().__init__(message)
        self.message = message
        self.facts: dict[str, str] = {key: str(value) for key, value in facts.items()}

    def diagnostics(self) -> str:
        """Return the text for an operator: what happened, the facts, what to do next."""
        lines = [f"{self.message} [{self.reason}]"]
        lines += [f"  {key}: {value}" for key, value in self.facts.items()]
        if self.next_step:
            lines.append(f"  next step: {self.next_step}")
        return "\n".join(lines)


def concrete_errors() -> dict[str, type[AgentError]]:
    """Return every concrete error by its reason code, in the order of this file."""
    found: dict[str, type[AgentError]] = {}
    stack: list[type[AgentError]] = [AgentError]
    while stack:
        error = stack.pop(0)
        stack[:0] = error.__subclasses__()
        if error.reason:
            found[error.reason] = error
    return found


# --- configuration ---------------------------------------------------------------------------------------------------


class ConfigurationError(AgentError):
    """The configuration file cannot be used."""


class ConfigUnreadable(ConfigurationError):
    """The file is missing, not readable or not one JSON object."""

    reason = "CONFIG_UNREADABLE"
    next_step = "give -c the path of a readable file with one JSON object; `lightkeeper config init` writes one"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to say about one key. `given` and `allowed` are empty where they would say nothing, or too much."""

    key: str
    problem: str
    given: str = ""
    allowed: str = ""

    def __str__(self) -> str:
        """Return the finding on one line, without its key."""
        given = f" (given: {self.given})" if self.given else ""
        allowed = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{self.problem}{given}{allowed}"


class ConfigInvalid(ConfigurationError):
    """One or more values are wrong or missing; `faults` lists all of them, `warnings` what else there is to say."""

    reason = "CONFIG_INVALID"
    next_step = "correct every line listed, then run `lightkeeper config check FILE`"

    def __init__(
        self, message: str, faults: Sequence[Finding] = (), warnings: Sequence[Finding] = (), **facts: object
    ) -> None:
        """Keep every fault; the facts name each key with what is wrong."""
        listed: dict[str, str] = {}
        for fault in faults:
            listed[fault.key] = f"{listed[fault.key]}; {fault}" if fault.key in listed else str(fault)
        super().__init__(message, **listed, **facts)
        self.faults = tuple(faults)
        self.warnings = tuple(warnings)


class ConfigFileExists(ConfigurationError):
    """`lightkeeper config init` would overwrite a file."""

    reason = "CONFIG_FILE_EXISTS"
    next_step = "choose another path, or give --force to replace the file"


class TransportMissing(ConfigurationError):
    """The configuration asks for the native wire: it is not there, of another release, or cannot serve the address."""

    reason = "TRANSPORT_MISSING"
    next_step = "install the lightkeeper-wire of this release, or set lightkeeper_transport to auto or grpcio"


class ProviderUnusable(ConfigurationError):
    """The provider that the configuration names is not there, or cannot be made."""

    reason = "PROVIDER_UNUSABLE"
    next_step = "see to sagemaker_edge_provider_provider and its keys, then run `lightkeeper config check FILE`"


class StateUnusable(ConfigurationError):
    """The agent's state folder cannot be made or written."""

    reason = "STATE_UNUSABLE"
    next_step = "set sagemaker_edge_local_data_root_path to a folder that the agent's user may write"


class StateDiskBroken(ConfigurationError):
    """The disk under the state folder is read-only, full or failing; the agent runs without it and without captures."""

    reason = "STATE_DISK_BROKEN"
    next_step = "repair or free the disk under sagemaker_edge_local_data_root_path, then restart the agent"


class StateInUse(ConfigurationError):
    """Another agent keeps its state in this folder right now."""

    reason = "STATE_IN_USE"
    next_step = "stop the other agent, or give each its own sagemaker_edge_local_data_root_path"


class ConfigUnwritable(ConfigurationError):
    """`lightkeeper config init` could not write the file."""

    reason = "CONFIG_UNWRITABLE"
    next_step = "choose a path in a folder that exists and that your user may write to"


# --- socket ----------------------------------------------------------------------------------------------------------


class SocketError(AgentError):
    """The socket path cannot be served."""


class SocketAddressInvalid(SocketError):
    """The address is empty, or of a scheme other than a Unix socket's."""

    reason = "SOCKET_ADDRESS_INVALID"
    next_step = "give -a a file's path, such as /tmp/agent.sock or unix:/tmp/agent.sock; loopback:PATH serves TCP"


class SocketPathTooLong(SocketError):
    """The path does not fit the kernel's socket address."""

    reason = "SOCKET_PATH_TOO_LONG"
    next_step = "choose a shorter path; the kernel's limit is 107 bytes"


class SocketFolderMissing(SocketError):
    """The folder the socket would lie in does not exist or is not a folder."""

    reason = "SOCKET_FOLDER_MISSING"
    next_step = "make the folder first, or choose another path"


class SocketPathExists(SocketError):
    """Something that is not a socket lies at the path."""

    reason = "SOCKET_PATH_EXISTS"
    next_step = "choose another path, or move the file away; the agent never removes a file that is not a socket"


class SocketStale(SocketError):
    """A socket file lies at the path and nobody serves it."""

    reason = "SOCKET_STALE"
    next_step = "start with -f to remove the stale socket file"


class SocketInUse(SocketError):
    """Another process serves the path right now."""

    reason = "SOCKET_IN_USE"
    next_step = "stop the other agent first, or choose another path"


class SocketDenied(SocketError):
    """The operating system refused to make the socket."""

    reason = "SOCKET_DENIED"
    next_step = "run the agent as a user who may write in the folder, or choose another path"


# --- requests --------------------------------------------------------------------------------------------------------


class InvalidRequest(AgentError):
    """The request itself is wrong."""


class MessageMalformed(InvalidRequest):
    """The bytes are not the protobuf message the method takes."""

    reason = "MESSAGE_MALFORMED"
    next_step = "generate the client from proto/agent.proto and send that method's request message"


class NameInvalid(InvalidRequest):
    """A model's name does not match the pattern."""

    reason = "NAME_INVALID"
    next_step = "use 1 to 63 letters, digits and hyphens, with a letter or digit first and last"


class UrlInvalid(InvalidRequest):
    """A model's url is empty or of a kind that is not a local path."""

    reason = "URL_INVALID"
    next_step = "give the path or file:// URL of a package folder or a .tar.gz archive on this device"


class CaptureIdInvalid(InvalidRequest):
    """A capture's id does not match the pattern."""

    reason = "CAPTURE_ID_INVALID"
    next_step = "use 1 to 64 letters, digits and hyphens, with a letter or digit first and last"


class FlushTimeInvalid(InvalidRequest):
    """The time to wait for a flush is negative, too long, or no number."""

    reason = "FLUSH_TIME_INVALID"
    next_step = "give between 0 and 600 seconds"


class TimestampInvalid(InvalidRequest):
    """A capture's inference time is no time."""

    reason = "TIMESTAMP_INVALID"
    next_step = "send seconds since 1970 and 0 to 999999999 nanoseconds, or leave inference_timestamp unset to mean now"


class AuxiliaryDataInvalid(InvalidRequest):
    """A piece of auxiliary data has no data or no name."""

    reason = "AUXILIARY_DATA_INVALID"
    next_step = "give each piece of auxiliary data a name and byte_data or a shared_memory_handle"


class InvalidTensor(InvalidRequest):
    """A tensor does not fit the model."""


class TensorMissing(InvalidTensor):
    """The model needs an input that the request does not have."""

    reason = "TENSOR_MISSING"
    next_step = "send every input that DescribeModel lists"


class TensorUnknown(InvalidTensor):
    """The request has a tensor that the model does not take."""

    reason = "TENSOR_UNKNOWN"
    next_step = "use the input names that DescribeModel lists"


class TensorDuplicate(InvalidTensor):
    """Two tensors of the request are for the same input."""

    reason = "TENSOR_DUPLICATE"
    next_step = "send each input once"


class TensorTypeMismatch(InvalidTensor):
    """The tensor's data type is not the input's."""

    reason = "TENSOR_TYPE_MISMATCH"
    next_step = "convert the tensor to the data type that DescribeModel lists"


class TensorShapeMismatch(InvalidTensor):
    """The tensor's shape does not fit the input's, or has a dimension no tensor can have."""

    reason = "TENSOR_SHAPE_MISMATCH"
    next_step = "send the shape that DescribeModel lists; -1 there stands for any size of zero or more"


class TensorShapeUnknown(InvalidTensor):
    """The shape was left to the model, but the model's own shape leaves it open."""

    reason = "TENSOR_SHAPE_UNKNOWN"
    next_step = "send the tensor's data type and shape along with its name"


class TensorSizeMismatch(InvalidTensor):
    """The number of bytes is not what type and shape say."""

    reason = "TENSOR_SIZE_MISMATCH"
    next_step = "send exactly the tensor's little-endian, C-contiguous bytes"


class TensorDataMissing(InvalidTensor):
    """The tensor has neither bytes nor a shared memory handle."""

    reason = "TENSOR_DATA_MISSING"
    next_step = "set byte_data or shared_memory_handle (an empty byte_data is the data of an empty tensor)"


class InputRejected(InvalidTensor):
    """The model's runtime found, while running, that the inputs do not go together."""

    reason = "INPUT_REJECTED"
    next_step = "check how the inputs' dynamic dimensions and values depend on each other in the model"


class SharedMemoryRefused(InvalidTensor):
    """A shared memory handle cannot be honoured."""


class SharedMemoryNotFound(SharedMemoryRefused):
    """No segment has this id, or the agent may not attach it."""

    reason = "SHARED_MEMORY_NOT_FOUND"
    next_step = "send the id that shmget returned, keep the segment until the answer, and let the agent's user read it"


class SharedMemoryWritable(SharedMemoryRefused):
    """Somebody may still write or execute the segment."""

    reason = "SHARED_MEMORY_WRITABLE"
    next_step = "set the segment's mode to 0400 (shmctl IPC_SET) after filling it and before sending it"


class SharedMemoryForeign(SharedMemoryRefused):
    """The caller's own user could not read the segment."""

    reason = "SHARED_MEMORY_FOREIGN"
    next_step = "send only segments that the calling user may read"


class SharedMemoryOutOfBounds(SharedMemoryRefused):
    """Offset and size fall outside the segment."""

    reason = "SHARED_MEMORY_OUT_OF_BOUNDS"
    next_step = "make the segment at least offset plus size bytes long"


class SharedMemoryUnsupported(SharedMemoryRefused):
    """This platform has no System V shared memory."""

    reason = "SHARED_MEMORY_UNSUPPORTED"
    next_step = "send the tensor as byte_data"


class OutOfRange(AgentError):
    """A value lies outside what can be now."""


class TimestampInFuture(OutOfRange):
    """A capture's inference time lies after the device's own time."""

    reason = "TIMESTAMP_IN_FUTURE"
    next_step = "compare the clocks; leave inference_timestamp unset to mean now"


# --- not found, already there ----------------------------------------------------------------------------------------


class NotFound(AgentError):
    """What the caller names is not there."""


class ModelNotFound(NotFound):
    """No model is loaded under this name."""

    reason = "MODEL_NOT_FOUND"
    next_step = "load the model first; ListModels tells what is loaded"


class ServiceUnknown(NotFound):
    """A health check asks for a service that the agent has not."""

    reason = "SERVICE_UNKNOWN"
    next_step = "ask for AWS.SageMaker.Edge.Agent, or for the empty name, which stands for the whole agent"


class PackageNotFound(NotFound):
    """Nothing lies at the url."""

    reason = "PACKAGE_NOT_FOUND"
    next_step = "check the path as the agent's user sees it"


class PackageNotKept(NotFound):
    """The agent has no copy of the package any more, and another one lies where it came from."""

    reason = "PACKAGE_NOT_KEPT"
    next_step = "load or swap the package that you want by its path"


class PreviousVersionMissing(NotFound):
    """The model has no version to go back to."""

    reason = "PREVIOUS_VERSION_MISSING"
    next_step = "swap in the version that you want by the path of its package"


class AlreadyExists(AgentError):
    """What the caller wants to make is there."""


class ModelAlreadyLoaded(AlreadyExists):
    """The name is in use."""

    reason = "MODEL_ALREADY_LOADED"
    next_step = "unload the model of that name first, or choose another name"


class CaptureIdTaken(AlreadyExists):
    """A capture of this id was accepted before, and the ledger still knows it."""

    reason = "CAPTURE_ID_TAKEN"
    next_step = "give every capture an id of its own, such as a UUID"


# --- resources -------------------------------------------------------------------------------------------------------


class ResourcesExhausted(AgentError):
    """Not enough of something right now."""


class MemoryShort(ResourcesExhausted):
    """The device has too little free memory for the model."""

    reason = "MEMORY_SHORT"
    next_step = "unload another model, or give the agent more memory"


class MessageTooLarge(ResourcesExhausted):
    """A request is larger than the agent takes, or unpacks to more."""

    reason = "MESSAGE_TOO_LARGE"
    next_step = "send large tensors in shared memory, or raise lightkeeper_max_message_bytes"


class CallsTooMany(ResourcesExhausted):
    """As many calls, or open streams, as the agent takes are under way or waiting."""

    reason = "CALLS_TOO_MANY"
    next_step = "try again a little later, with fewer calls at once"


class BuffersFull(ResourcesExhausted):
    """Large requests under way fill what the agent keeps for them."""

    reason = "BUFFERS_FULL"
    next_step = "try again a little later, send large tensors in shared memory, or raise lightkeeper_max_message_bytes"


class DiskShort(ResourcesExhausted):
    """The disk has too little room to unpack the package."""

    reason = "DISK_SHORT"
    next_step = "free room in the agent's state folder (sagemaker_edge_local_data_root_path); `verify` uses TMPDIR"


class CaptureBufferFull(ResourcesExhausted):
    """As many captures as the buffer holds wait for their batch to be closed."""

    reason = "CAPTURE_BUFFER_FULL"
    next_step = "try again a little later, or raise sagemaker_edge_core_capture_data_buffer_size"


class SamplesBehind(ResourcesExhausted):
    """Samples are chosen faster than the disk takes them."""

    reason = "SAMPLES_BEHIND"
    next_step = "give the rules of lightkeeper_capture_rules a smaller share or limits, or use a quicker disk"


class SpoolFull(ResourcesExhausted):
    """The spool holds as many bytes as it may, or the disk has less room than stays free."""

    reason = "SPOOL_FULL"
    next_step = "let the device reach its cloud, raise lightkeeper_spool_max_bytes, or set the policy `thin`"


class SpoolDiskFull(ResourcesExhausted):
    """The disk under the spool is full."""

    reason = "SPOOL_DISK_FULL"
    next_step = "free room on the disk of sagemaker_edge_local_data_root_path"


# --- captures --------------------------------------------------------------------------------------------------------


class DestinationUnusable(AgentError):
    """Captures cannot go where the configuration sends them."""


class CaptureDestinationUnusable(DestinationUnusable):
    """The destination of captures cannot be used as it is configured."""

    reason = "CAPTURE_DESTINATION_UNUSABLE"
    next_step = "run `lightkeeper config check FILE` and see to the capture keys"


class CloudAbsent(DestinationUnusable):
    """The provider reaches no cloud."""

    reason = "CLOUD_ABSENT"
    next_step = "set sagemaker_edge_provider_provider to one that has a cloud, or the capture destination to Disk"


class DeliveryFailed(AgentError):
    """A batch of captures did not arrive; it waits in the spool, and `capture/retry.py` says what happens next."""


class DestinationUnreachable(DeliveryFailed):
    """The network does not get through to the destination, or was cut."""

    reason = "DESTINATION_UNREACHABLE"
    next_step = "check the device's network and the endpoint in the message; captures wait meanwhile"


class DestinationBusy(DeliveryFailed):
    """The destination answers that it cannot take the data just now."""

    reason = "DESTINATION_BUSY"
    next_step = "nothing, unless it lasts: the agent tries again"


class DestinationDenied(DeliveryFailed):
    """The destination does not accept the device's credentials, or there are none."""

    reason = "DESTINATION_DENIED"
    next_step = "check the device's credentials, and that they may put objects into the bucket"


class CertificateFilesUnusable(DeliveryFailed):
    """The device's certificate, its key or the authority's certificate cannot be read, or do not belong together."""

    reason = "CERTIFICATE_FILES_UNUSABLE"
    next_step = "check the files that sagemaker_edge_provider_aws_ca_cert_file, …_cert_file and …_cert_pk_file name"


class TokenKeyUnusable(DeliveryFailed):
    """The device's private key in a PKCS#11 token cannot be used: the token, the key or the PIN is not right."""

    reason = "TOKEN_KEY_UNUSABLE"
    next_step = (
        "check token, object and PIN of sagemaker_edge_provider_aws_cert_pk_file with pkcs11-tool --list-objects"
    )


class TokenToolsMissing(DeliveryFailed):
    """A private key in a PKCS#11 token needs the system's curl and OpenSSL's way to such tokens, and one is missing."""

    reason = "TOKEN_TOOLS_MISSING"
    next_step = (
        "install curl and libengine-pkcs11-openssl (Debian, Ubuntu; from OpenSSL 3.5 on pkcs11-provider) or their "
        "like, and the token's module"
    )


class DestinationUntrusted(DeliveryFailed):
    """The destination's certificate is not of the configured authority, is for another host, or is out of date."""

    reason = "DESTINATION_UNTRUSTED"
    next_step = "check sagemaker_edge_provider_aws_ca_cert_file, the endpoint's address and its certificate"


class DestinationMissing(DeliveryFailed):
    """The bucket, the folder or the mounted disk is not there."""

    reason = "DESTINATION_MISSING"
    next_step = "make the bucket, or mount the disk again; captures wait meanwhile"


class DestinationFull(DeliveryFailed):
    """The destination's disk is full."""

    reason = "DESTINATION_FULL"
    next_step = "free room under sagemaker_edge_core_capture_data_disk_path"


class DestinationFaulty(DeliveryFailed):
    """The destination's file system refuses: an I/O error, read-only, no permission."""

    reason = "DESTINATION_FAULTY"
    next_step = "check the disk and who may write under sagemaker_edge_core_capture_data_disk_path"


class DestinationRefusing(DeliveryFailed):
    """The destination refuses a request, and it is not plain whether any other would pass."""

    reason = "DESTINATION_REFUSING"
    next_step = "check bucket, region and lightkeeper_s3_endpoint against the cause in the facts"


class ClockWrong(DeliveryFailed):
    """The destination finds the device's clock too far from its own."""

    reason = "CLOCK_WRONG"
    next_step = "set the device's clock; captures wait meanwhile"


class UploadBudgetSpent(DeliveryFailed):
    """As many bytes were uploaded today as may be."""

    reason = "UPLOAD_BUDGET_SPENT"
    next_step = "nothing: it goes on at midnight UTC; lightkeeper_upload_bytes_per_day sets how much a day takes"

    def __init__(self, message: str, *, wait_seconds: float, **facts: object) -> None:
        """Keep how long it is until there is a new budget."""
        super().__init__(message, wait_seconds=round(wait_seconds), **facts)
        self.wait_seconds = wait_seconds


class DeliveryInterrupted(DeliveryFailed):
    """The agent stops while a batch is under way; it is delivered after the next start."""

    reason = "DELIVERY_INTERRUPTED"
    next_step = "nothing: the batch waits in the spool"


class ObjectRefused(DeliveryFailed):
    """The destination will never take this object, such as one larger than it allows."""

    reason = "OBJECT_REFUSED"
    next_step = "look into the spool's quarantine folder: the batch lies there with its cause"


class PayloadLost(DeliveryFailed):
    """A capture's payload can no longer be read from the spool."""

    reason = "PAYLOAD_LOST"
    next_step = "check the disk of the spool; what is left of the batch lies in the spool's quarantine folder"


class RecordDamaged(DeliveryFailed):
    """A capture's record in the spool is not what was written."""

    reason = "RECORD_DAMAGED"
    next_step = "check the disk of the spool; the record lies as it is in the spool's quarantine folder"


# --- packages --------------------------------------------------------------------------------------------------------


class PackageRefused(AgentError):
    """The package can't be trusted or can't run here."""


class PackageUnreadable(PackageRefused):
    """The package is neither a folder nor a readable .tar.gz archive."""

    reason = "PACKAGE_UNREADABLE"
    next_step = "build the package again with `lightkeeper package`, and copy it whole"


class ArchiveTooLarge(PackageRefused):
    """Unpacking would pass a limit on bytes, files, ratio, depth or name length."""

    reason = "ARCHIVE_TOO_LARGE"
    next_step = "raise the limit named in the facts if the package is really yours and really this large"


class ArchivePathEscape(PackageRefused):
    """An archive member would land outside the package's folder."""

    reason = "ARCHIVE_PATH_ESCAPE"
    next_step = "do not use this archive; nobody makes such a member by accident"


class PackageMemberForbidden(PackageRefused):
    """A member is a symbolic link, a hard link, a device or another thing that is no plain file or folder."""

    reason = "PACKAGE_MEMBER_FORBIDDEN"
    next_step = "replace links by the files they point to, and build the package again"


class ManifestInvalid(PackageRefused):
    """manifest.json is missing a field, or has a wrong one."""

    reason = "MANIFEST_INVALID"
    next_step = "build the package again with `lightkeeper package`"


class SignatureRefused(PackageRefused):
    """The signature or its certificates are not accepted."""


class SignatureMissing(SignatureRefused):
    """The package has no model.sig."""

    reason = "SIGNATURE_MISSING"
    next_step = "sign the package: `lightkeeper package … --signer DIR`"


class SignatureMalformed(SignatureRefused):
    """model.sig is not an OpenSSF Model Signing v1.0 bundle with an X.509 certificate."""

    reason = "SIGNATURE_MALFORMED"
    next_step = "sign the package again: `lightkeeper package … --signer DIR`"


class SignatureInvalid(SignatureRefused):
    """The signature does not match what it signs."""

    reason = "SIGNATURE_INVALID"
    next_step = "get the package again from its builder; it was altered or wrongly signed"


class RootUnknown(SignatureRefused):
    """The certificate chain ends at no root this device trusts."""

    reason = "ROOT_UNKNOWN"
    next_step = "put the signer's root certificate into the root certificates folder, or sign with a trusted authority"


class CertificateExpired(SignatureRefused):
    """A certificate of the chain is past its end."""

    reason = "CERTIFICATE_EXPIRED"
    next_step = "check the device's clock; if it is right, sign the package with a certificate that is still valid"


class CertificateNotYetValid(SignatureRefused):
    """A certificate of the chain has not begun."""

    reason = "CERTIFICATE_NOT_YET_VALID"
    next_step = "check the device's clock; if it is right, wait or sign with a certificate that is valid now"


class CertificateUnusable(SignatureRefused):
    """A certificate may not be used for this: no digital-signature use, not an authority, an unsupported key."""

    reason = "CERTIFICATE_UNUSABLE"
    next_step = "sign with a leaf that has the digital-signature key usage (`lightkeeper ca init` makes one)"


class RootsMissing(SignatureRefused):
    """The root certificates folder has no usable certificate."""

    reason = "ROOTS_MISSING"
    next_step = (
        "put at least one root certificate (PEM, read-only) into the folder of sagemaker_edge_core_root_certs_path"
    )


class RootUnusable(SignatureRefused):
    """A file in the root certificates folder is not a root certificate in PEM."""

    reason = "ROOT_UNUSABLE"
    next_step = "replace the file by the PEM of a self-signed root certificate, or remove it from the folder"


class RootsWritable(SignatureRefused):
    """A root certificate file can be written by somebody, or everybody may put files into their folder."""

    reason = "ROOTS_WRITABLE"
    next_step = "let nobody write to it: chmod a-w FILE (on Windows attrib +r FILE), or chmod o-w for the folder"


class ContentRefused(PackageRefused):
    """The files are not what was signed."""


class FileChanged(ContentRefused):
    """A file's digest is not the signed one."""

    reason = "FILE_CHANGED"
    next_step = "get the package again from its builder; this file was altered after signing"


class FileMissing(ContentRefused):
    """A signed file is not there."""

    reason = "FILE_MISSING"
    next_step = "get the package again from its builder; it is not whole"


class FileExtra(ContentRefused):
    """A file is there that was not signed."""

    reason = "FILE_EXTRA"
    next_step = "remove the file, or build the package again with it"


class CannotRunHere(PackageRefused):
    """The package is whole and trusted, but not for this device or this agent."""


class TargetMismatch(CannotRunHere):
    """The package was built for another operating system, architecture or accelerator."""

    reason = "TARGET_MISMATCH"
    next_step = "build the package for this device's target, or with the target `any`"


class AgentTooOld(CannotRunHere):
    """The package asks for a newer agent."""

    reason = "AGENT_TOO_OLD"
    next_step = "update Lightkeeper on this device"


class FormatUnsupported(CannotRunHere):
    """No runtime on this device takes the package's format."""

    reason = "FORMAT_UNSUPPORTED"
    next_step = "install the runtime for this format, or convert the model to ONNX"


class ModelUnreadable(CannotRunHere):
    """The runtime cannot open the model file."""

    reason = "MODEL_UNREADABLE"
    next_step = "check the model with its own tools (for ONNX: onnx.checker) and export it again"


class ModelTypeUnsupported(CannotRunHere):
    """An input or output has a type that the local API cannot carry."""

    reason = "MODEL_TYPE_UNSUPPORTED"
    next_step = (
        "export the model with inputs and outputs of UINT8, INT16, INT32, INT64, FLOAT16, FLOAT32 or FLOAT64 tensors"
    )


class ModelSignatureMismatch(CannotRunHere):
    """The model's inputs or outputs are not those of its manifest."""

    reason = "MODEL_SIGNATURE_MISMATCH"
    next_step = "build the package again with `lightkeeper package`, which reads them from the model"


class WarmUpFailed(CannotRunHere):
    """The model's first run failed."""

    reason = "WARM_UP_FAILED"
    next_step = "run the model with its own tools on this device, or add a golden input that fits it"


class GoldenMismatch(CannotRunHere):
    """The golden input did not give the golden output within its tolerance."""

    reason = "GOLDEN_MISMATCH"
    next_step = "compare this device's processor and runtime with those the golden output was made on"


# --- swapping --------------------------------------------------------------------------------------------------------


class SwapRefused(AgentError):
    """A new version may not take the place of the loaded one, or not keep it; the old one answers."""


class SwapUnderway(SwapRefused):
    """Another change of this model is under way."""

    reason = "SWAP_UNDERWAY"
    next_step = "wait until it is over; `lightkeeper models status` tells"


class SwapInterfaceMismatch(SwapRefused):
    """The new version's inputs or outputs would break the callers of the old one."""

    reason = "SWAP_INTERFACE_MISMATCH"
    next_step = "load the new version under another name, and move its callers there"


class SwapRunFailed(SwapRefused):
    """The new version fails where the old one answers."""

    reason = "SWAP_RUN_FAILED"
    next_step = "run the new version with its own tools on such an input; the agent's log tells what failed"


class SwapTooSlow(SwapRefused):
    """The new version takes longer than the limit allows, beside the old one."""

    reason = "SWAP_TOO_SLOW"
    next_step = "raise lightkeeper_swap_latency_ratio, or the package's latency_ratio, if this is meant to be so"


class SwapDisagrees(SwapRefused):
    """The new version's outputs differ from the old one's by more than the limit allows."""

    reason = "SWAP_DISAGREES"
    next_step = "raise the limit named in the facts, in the configuration or the package, if this is meant to be so"


class SwapCutShort(SwapRefused):
    """The agent ended more than once, without being stopped, while it watched the new version."""

    reason = "SWAP_CUT_SHORT"
    next_step = "look into the system's log for why the agent ended: the model may crash it or use up its memory"


# --- deployments -----------------------------------------------------------------------------------------------------


class DeploymentFailed(AgentError):
    """A part of a deployment cannot be done; the fleet learns it from the deployment's result."""


class ChecksumMismatch(DeploymentFailed):
    """What was fetched is not what the deployment names."""

    reason = "CHECKSUM_MISMATCH"
    next_step = "deploy the package again: it was replaced in the bucket, or altered on its way"


class FetchGivenUp(DeploymentFailed):
    """The package could not be fetched for too long."""

    reason = "FETCH_GIVEN_UP"
    next_step = "check the device's network, and that it may read the package; then deploy it again"


class HandleTwice(DeploymentFailed):
    """The deployment has two definitions for one handle."""

    reason = "HANDLE_TWICE"
    next_step = "make a deployment in which every model handle is there once"


class DeploymentCutShort(DeploymentFailed):
    """The agent died again and again at one step of the deployment."""

    reason = "DEPLOYMENT_CUT_SHORT"
    next_step = "look into the system's log for why the agent ended: the model may crash it or use up its memory"


class TakenBack(DeploymentFailed):
    """The model was fine, and was put back because another one of its deployment failed."""

    reason = "TAKEN_BACK"
    next_step = "see to the model that failed"


# --- making packages -------------------------------------------------------------------------------------------------


class SigningError(AgentError):
    """A package or an authority could not be made."""


class VersionInvalid(SigningError):
    """A model's version does not match the pattern."""

    reason = "VERSION_INVALID"
    next_step = (
        "use 1 to 64 letters, digits, dots, hyphens, underscores and plus signs, a letter or digit first and last"
    )


class OutputUnwritable(SigningError):
    """The command cannot write where it was told to."""

    reason = "OUTPUT_UNWRITABLE"
    next_step = "choose a folder you may write in, with enough room"


class OutputExists(SigningError):
    """The command would overwrite a file."""

    reason = "OUTPUT_EXISTS"
    next_step = "choose another place, or move what lies there away"


class SignerUnusable(SigningError):
    """The signer's key or certificate is missing, unreadable, or they do not match."""

    reason = "SIGNER_UNUSABLE"
    next_step = "point --signer at a folder with signer.key and signer.pem, as `lightkeeper ca init` makes it"


class SourceUnusable(SigningError):
    """The model given to `lightkeeper package` cannot be packaged."""

    reason = "SOURCE_UNUSABLE"
    next_step = "give an .onnx file, or a folder that holds the model's files"


# --- the command line ------------------------------------------------------------------------------------------------


class CommandError(AgentError):
    """A command cannot do what it was asked to."""


class InputFileUnreadable(CommandError):
    """A file given as an input cannot be read, or does not fit the input."""

    reason = "INPUT_FILE_UNREADABLE"
    next_step = "give .npy, .npz, .json files or images; `lightkeeper models describe NAME` shows what the model takes"


class LedgerMissing(CommandError):
    """The state folder has no ledger of captures: no agent has kept any there."""

    reason = "LEDGER_MISSING"
    next_step = "give the agent's configuration with -c, or its state folder with --state, as the agent's user"


class LedgerUnreadable(CommandError):
    """The ledger of captures cannot be reached, as by another user than the agent's."""

    reason = "LEDGER_UNREADABLE"
    next_step = "ask as the agent's user, such as with sudo -u"


class CaptureUnknown(CommandError):
    """The ledger has no capture of this id: never accepted, or forgotten since."""

    reason = "CAPTURE_UNKNOWN"
    next_step = "check the id; what is done with is forgotten after lightkeeper_ledger_retention_days"


class AuditFailed(CommandError):
    """The ledger does not add up, or does not agree with the files."""

    reason = "AUDIT_FAILED"
    next_step = "keep a copy of the spool folder, look into the agent's log, and report it"


class FlushIncomplete(CommandError):
    """Not everything that waited was delivered within the time."""

    reason = "FLUSH_INCOMPLETE"
    next_step = "look into the agent's log for what holds the delivery up; the captures wait in the spool"


class ReleaseUnreadable(CommandError):
    """An archive of Lightkeeper, or the signature beside it, cannot be read."""

    reason = "RELEASE_UNREADABLE"
    next_step = "fetch the archive and its .sig.json from the same folder of the release store"


class StoreUnusable(CommandError):
    """A folder is no release store, or one whose files do not belong together."""

    reason = "STORE_UNUSABLE"
    next_step = "give the folder that `make release` wrote: dist/release-store-PLATFORM"


class ReleaseTaken(CommandError):
    """The store has a file of this name with another content: what is published is never changed."""

    reason = "RELEASE_TAKEN"
    next_step = "build the release from another commit, which gives it another version"


class ExtraMissing(CommandError):
    """The command needs a part of Lightkeeper that is not installed."""

    reason = "EXTRA_MISSING"
    next_step = "install it with the extra in the facts: pip install 'lightkeeper[EXTRA]'"


# --- reading captures back -------------------------------------------------------------------------------------------


class ReadingError(AgentError):
    """Captures that were written cannot be read back."""


class CapturesMissing(ReadingError):
    """No batch of captures lies there."""

    reason = "CAPTURES_MISSING"
    next_step = "give the folder or s3:// address that captures are written to, or one .jsonl file"


class CapturesUnreadable(ReadingError):
    """Batches of captures cannot be listed or opened."""

    reason = "CAPTURES_UNREADABLE"
    next_step = "check that your user may read what lies there"


class CaptureDamaged(ReadingError):
    """A line of a batch is no capture."""

    reason = "CAPTURE_DAMAGED"
    next_step = "look at the named lines; the other captures of the batch can be read"


class PayloadUnreadable(ReadingError):
    """The file of a capture's payload is missing, lies elsewhere or has another size than its type and shape say."""

    reason = "PAYLOAD_UNREADABLE"
    next_step = "keep the folder of a batch's payloads beside the batch, under the same name"


# --- the hub ---------------------------------------------------------------------------------------------------------


class HubUnusable(AgentError):
    """The hub cannot start, or a command cannot use it."""


class DatabaseUnusable(HubUnusable):
    """The hub's database cannot be opened or reached."""

    reason = "DATABASE_UNUSABLE"
    next_step = "check --database, who may read and write there, and that the server runs"


class SchemaNewer(HubUnusable):
    """The hub's database was last used by a later build."""

    reason = "SCHEMA_NEWER"
    next_step = "update Lightkeeper on this machine, or use the database that belongs to this build"


class ListenerUnusable(HubUnusable):
    """The hub cannot listen where it should."""

    reason = "LISTENER_UNUSABLE"
    next_step = "end what listens there, or choose another port with --port and --credentials-port"


class HubFolderUnusable(HubUnusable):
    """The hub's folder cannot be made, read or written."""

    reason = "HUB_FOLDER_UNUSABLE"
    next_step = "give a folder that your user may read and write, on a disk with room"


class HubFolderInUse(HubUnusable):
    """Another hub runs in this folder."""

    reason = "HUB_FOLDER_IN_USE"
    next_step = "end the other hub, or give this one a folder of its own with the same --database and --s3-endpoint"


class HubNotRunning(HubUnusable):
    """No hub has published its addresses in this folder."""

    reason = "HUB_NOT_RUNNING"
    next_step = "start one with `lightkeeper hub up DIR` and wait until it is ready, or give its folder with --hub DIR"


class HubCallRefused(HubUnusable):
    """The hub refused what a command asked it."""

    reason = "HUB_CALL_REFUSED"
    next_step = "see the hub's answer in the message"


class HubSettingInvalid(HubUnusable):
    """A setting of the hub has a name or a value that it cannot have."""

    reason = "HUB_SETTING_INVALID"
    next_step = "see the table of settings in docs/hub.md"


class HubRefusal(AgentError):
    """The hub refuses a call."""


class CallInvalid(HubRefusal):
    """A call that no retry will make right."""


class ShapeMismatch(CallInvalid):
    """A value of a call is not what the service model asks for."""

    reason = "SHAPE_MISMATCH"
    next_step = "correct the member named in the message"


class PageTokenInvalid(CallInvalid):
    """NextToken is none that this listing gave out."""

    reason = "PAGE_TOKEN_INVALID"
    next_step = "list again from the beginning, with the same parameters on every page"


class ItemDuplicate(CallInvalid):
    """A list in a call has the same name twice."""

    reason = "ITEM_DUPLICATE"
    next_step = "send each name once"


class PlanInvalid(CallInvalid):
    """A deployment plan names no model, or one handle twice."""

    reason = "PLAN_INVALID"
    next_step = "give each model handle once, with the packaging job whose package it gets"


class PackageNotReady(CallInvalid):
    """An edge packaging job that a deployment plan names has not made its package."""

    reason = "PACKAGE_NOT_READY"
    next_step = "wait until DescribeEdgePackagingJob says COMPLETED, then create the plan"


class PlanTagInvalid(CallInvalid):
    """A `lightkeeper:` tag of a deployment plan says nothing that the hub knows."""

    reason = "PLAN_TAG_INVALID"
    next_step = "correct the tag; docs/hub.md lists those of a plan"


class SelectionInvalid(CallInvalid):
    """A stage does not say which devices it is for, or names devices that the fleet has not."""

    reason = "SELECTION_INVALID"
    next_step = "give the one member that goes with DeviceSubsetType, and devices that ListDevices shows"


class CallUnreadable(HubRefusal):
    """The bytes of a call are not what the protocol sends."""


class BodyMalformed(CallUnreadable):
    """The body is not one JSON object in UTF-8."""

    reason = "BODY_MALFORMED"
    next_step = "send one JSON object in UTF-8, each name once, numbers finite"


class BodyTypeUnsupported(CallUnreadable):
    """The body is of a type the operation does not take."""

    reason = "BODY_TYPE_UNSUPPORTED"
    next_step = "send the Content-Type that the SDK sends"


class RequestMalformed(CallUnreadable):
    """What came is no HTTP request, or one with too many or too long headers."""

    reason = "REQUEST_MALFORMED"
    next_step = "send HTTP/1.1 with headers of ordinary size"


class OperationUnknown(HubRefusal):
    """The hub does not offer the operation."""

    reason = "OPERATION_UNKNOWN"
    next_step = "see the table of operations in docs/hub.md"


class BodyTooLarge(HubRefusal):
    """The body is larger than any call needs."""

    reason = "BODY_TOO_LARGE"
    next_step = "send fewer items in one call"


class CallAbandoned(HubRefusal):
    """The body did not arrive in time."""

    reason = "CALL_ABANDONED"
    next_step = "send the call again over a network that carries it within the time in the message"


class CallerUnproven(HubRefusal):
    """The signature proves nobody."""


class SignatureAbsent(CallerUnproven):
    """The call is not signed."""

    reason = "SIGNATURE_ABSENT"
    next_step = "sign the call: give the client the access key of hub.json, or a device's credentials"


class SignatureIncomplete(CallerUnproven):
    """The Authorization header is not one of Signature Version 4, or leaves out what must be signed."""

    reason = "SIGNATURE_INCOMPLETE"
    next_step = "sign with Signature Version 4 in the Authorization header, as every AWS SDK does"


class AccessKeyUnknown(CallerUnproven):
    """No operator and no device session has this access key, or its security token is another."""

    reason = "ACCESS_KEY_UNKNOWN"
    next_step = "use the access key of this hub's hub.json, or fetch the device's credentials again"


class SessionEnded(CallerUnproven):
    """The device's session is over, or its certificate was revoked."""

    reason = "SESSION_ENDED"
    next_step = "fetch the device's credentials again; if that is refused, see whether its certificate was revoked"


class SignatureWrong(CallerUnproven):
    """The signature is not that of this request under this key."""

    reason = "SIGNATURE_WRONG"
    next_step = "check the secret access key, and that nothing between client and hub changes requests"


class SignatureTimeWrong(CallerUnproven):
    """The request was signed too long ago, or in the future."""

    reason = "SIGNATURE_TIME_WRONG"
    next_step = "set the clocks of client and hub; the message has both times"


class RequestReplayed(CallerUnproven):
    """A request that was carried out before came again, byte for byte."""

    reason = "REQUEST_REPLAYED"
    next_step = "sign every request anew, as every AWS SDK does, also for a retry"


class AccessRefused(HubRefusal):
    """This caller may not make the call."""


class OperatorOnly(AccessRefused):
    """A device called an operation of the control plane."""

    reason = "OPERATOR_ONLY"
    next_step = "call it with an operator's key"


class OtherDevice(AccessRefused):
    """A device called in the name of another."""

    reason = "OTHER_DEVICE"
    next_step = "send the device name and fleet that the credentials were issued for"


class ResourceMissing(HubRefusal):
    """What the call names is not there."""


class FleetUnknown(ResourceMissing):
    """There is no device fleet of this name."""

    reason = "FLEET_UNKNOWN"
    next_step = "list the fleets with ListDeviceFleets, or make this one with CreateDeviceFleet"


class DeviceUnknown(ResourceMissing):
    """The fleet has no device of this name."""

    reason = "DEVICE_UNKNOWN"
    next_step = "list the fleet's devices with ListDevices, or register this one with RegisterDevices"


class TaggedResourceUnknown(ResourceMissing):
    """Nothing of the hub has this ARN."""

    reason = "TAGGED_RESOURCE_UNKNOWN"
    next_step = "use the ARN that Describe or List gives"


class PlanUnknown(ResourceMissing):
    """There is no edge deployment plan of this name."""

    reason = "PLAN_UNKNOWN"
    next_step = "list the plans with ListEdgeDeploymentPlans"


class StageUnknown(ResourceMissing):
    """The deployment plan has no stage of this name."""

    reason = "STAGE_UNKNOWN"
    next_step = "look at the plan's stages with DescribeEdgeDeploymentPlan"


class ResourceBusy(HubRefusal):
    """What the call names is in use, or there already."""


class FleetExists(ResourceBusy):
    """There is a device fleet of this name."""

    reason = "FLEET_EXISTS"
    next_step = "choose another name, or change the fleet with UpdateDeviceFleet"


class FleetOccupied(ResourceBusy):
    """The device fleet still has devices, or an edge deployment plan that is not over."""

    reason = "FLEET_OCCUPIED"
    next_step = "deregister its devices and delete its deployment plans first"


class DeviceExists(ResourceBusy):
    """The fleet has a device of this name, with another description or thing."""

    reason = "DEVICE_EXISTS"
    next_step = "change the device with UpdateDevices, or choose another name"


class PlanExists(ResourceBusy):
    """There is an edge deployment plan of this name."""

    reason = "PLAN_EXISTS"
    next_step = "choose another name, or delete the plan that has it"


class PlanActive(ResourceBusy):
    """A stage of the deployment plan is under way."""

    reason = "PLAN_ACTIVE"
    next_step = "stop the stage with StopEdgeDeploymentStage, and wait until it is STOPPED"


class StageExists(ResourceBusy):
    """The deployment plan has a stage of this name."""

    reason = "STAGE_EXISTS"
    next_step = "choose another name for the stage"


class StageActive(ResourceBusy):
    """The stage is under way."""

    reason = "STAGE_ACTIVE"
    next_step = "stop it with StopEdgeDeploymentStage, and wait until it is STOPPED"


class ResourceConflict(HubRefusal):
    """The call does not fit the state that something is in."""


class ChangedMeanwhile(ResourceConflict):
    """Another call changed the same thing at the same time."""

    reason = "CHANGED_MEANWHILE"
    next_step = "look at it again, then repeat the call if it is still wanted"


class StageNotStartable(ResourceConflict):
    """The stage is under way, or every device has it."""

    reason = "STAGE_NOT_STARTABLE"
    next_step = "start a stage that is READYTODEPLOY, STOPPED or FAILED"


class StageNotRunning(ResourceConflict):
    """The stage is not under way."""

    reason = "STAGE_NOT_RUNNING"
    next_step = "look at the stage with DescribeEdgeDeploymentPlan: only one that is under way can be stopped"


class ResourceLimit(HubRefusal):
    """The call would make more of something than there may be."""


class FleetLimit(ResourceLimit):
    """There are as many device fleets as there may be."""

    reason = "FLEET_LIMIT"
    next_step = "delete fleets that are not used, or raise the hub's setting fleets_limit"


class DeviceLimit(ResourceLimit):
    """The fleet has as many devices as it may have."""

    reason = "DEVICE_LIMIT"
    next_step = "use another fleet, or raise the hub's setting devices_limit"


class TagLimit(ResourceLimit):
    """The resource would have more than 50 tags."""

    reason = "TAG_LIMIT"
    next_step = "remove tags with DeleteTags first"


class StageLimit(ResourceLimit):
    """A deployment plan would have more than 10 stages."""

    reason = "STAGE_LIMIT"
    next_step = "give a stage more devices, or make a second plan"


class PlanLimit(ResourceLimit):
    """There are as many deployment plans as there may be."""

    reason = "PLAN_LIMIT"
    next_step = "delete plans that are over, or raise the hub's setting plans_limit"


class HubBusy(HubRefusal):
    """The hub cannot take the call just now."""


class HubOverloaded(HubBusy):
    """As many calls wait as may wait."""

    reason = "HUB_OVERLOADED"
    next_step = "try again a little later, as every AWS SDK does by itself"


class DatabaseBusy(HubBusy):
    """The database did not take the change within its time."""

    reason = "DATABASE_BUSY"
    next_step = "try again a little later; if it lasts, look at the database's load"


# --- the hub's jobs --------------------------------------------------------------------------------------------------


class JobUnknown(ResourceMissing):
    """There is no job of this name."""

    reason = "JOB_UNKNOWN"
    next_step = "check the name; ListCompilationJobs and ListEdgePackagingJobs have them all"


class JobNameTaken(ResourceBusy):
    """There is a job of this name already."""

    reason = "JOB_NAME_TAKEN"
    next_step = "choose another name, or delete the compilation job of this name once it has ended"


class JobEnded(CallInvalid):
    """A job that has ended cannot be stopped."""

    reason = "JOB_ENDED"
    next_step = "look at the job's status first; a job that has ended needs no stopping"


class JobNotEnded(CallInvalid):
    """A job that has not ended cannot be deleted, and what it will write cannot be used."""

    reason = "JOB_NOT_ENDED"
    next_step = "wait until the job has ended, or stop it"


class JobLimit(ResourceLimit):
    """As many jobs wait as may wait."""

    reason = "JOB_LIMIT"
    next_step = "wait until some have ended, or raise the hub's setting jobs_limit"


class JobUnsupported(CallInvalid):
    """The job asks for something that this hub does not do."""

    reason = "JOB_UNSUPPORTED"
    next_step = "change the request as the message says"


class JobFailed(AgentError):
    """The work of a job of the hub cannot be done."""


class FrameworkUnsupported(JobFailed):
    """The hub compiles ONNX models alone."""

    reason = "FRAMEWORK_UNSUPPORTED"
    next_step = "convert the model to ONNX with the tool that the message names, and give Framework ONNX"


class ModelShapesMismatch(JobFailed):
    """The inputs that a job declares are not those of its model."""

    reason = "MODEL_SHAPES_MISMATCH"
    next_step = "correct DataInputConfig: the model's own names, and its shapes where they are fixed"


class CompiledModelChanged(JobFailed):
    """The object of a compilation job is not what the job wrote."""

    reason = "COMPILED_MODEL_CHANGED"
    next_step = "compile the model again; its artefact was replaced since"


class ObjectAddressInvalid(CallInvalid):
    """An address is not `s3://BUCKET/KEY`."""

    reason = "OBJECT_ADDRESS_INVALID"
    next_step = "give s3://BUCKET/KEY, without a query and without . or .. in the key"


class ObjectMissing(JobFailed):
    """There is no such object, or no such bucket."""

    reason = "OBJECT_MISSING"
    next_step = "check the bucket and the key (aws s3 ls), and upload the file first"


class ObjectDenied(JobFailed):
    """The S3 credentials do not allow it."""

    reason = "OBJECT_DENIED"
    next_step = "let the S3 credentials (the hub's, for a job) read the input and write the output location"


class ObjectTooLarge(JobFailed):
    """The object is larger than is taken."""

    reason = "OBJECT_TOO_LARGE"
    next_step = "give a smaller model, or raise the hub's limit"


class ObjectNotStored(JobFailed):
    """The store refuses the request."""

    reason = "OBJECT_NOT_STORED"
    next_step = "look up what the store's answer means; it is in the message"


class JobTimedOut(JobFailed):
    """The work took longer than it may."""

    reason = "JOB_TIMED_OUT"
    next_step = "raise StoppingCondition.MaxRuntimeInSeconds, up to the hub's own limit, or give a smaller model"


class JobOutOfMemory(JobFailed):
    """The work needs more memory than its process may take."""

    reason = "JOB_OUT_OF_MEMORY"
    next_step = "give a smaller model, or raise the hub's limit on a job's memory"


class JobAttemptsSpent(JobFailed):
    """The work was begun again and again, and never came to an end."""

    reason = "JOB_ATTEMPTS_SPENT"
    next_step = "look into the hub's log for why its processes died; try the model with its own tools"


class JobInterrupted(JobFailed):
    """The work could not be done this time; a later attempt may do it."""


class ObjectStoreUnreachable(JobInterrupted):
    """The store does not answer, or is busy."""

    reason = "OBJECT_STORE_UNREACHABLE"
    next_step = "check that the S3 runs and can be reached from here (for a job: from the hub), then try again"


class WorkerDied(JobInterrupted):
    """The process that did the work died."""

    reason = "WORKER_DIED"
    next_step = "try the model with its own tools (onnx.checker, onnxruntime); look into the hub's log"


class WorkWithdrawn(JobInterrupted):
    """The job was stopped, is another process's by now, or the hub is stopping."""

    reason = "WORK_WITHDRAWN"
    next_step = "nothing: the job ends, or another process takes it up"


# --- the hub: who a device is ----------------------------------------------------------------------------------------


class ObjectStoreFailed(HubUnusable):
    """The hub's own SeaweedFS does not start."""

    reason = "OBJECT_STORE_FAILED"
    next_step = "look into the folder s3/logs of the hub, free the port, or give --s3-endpoint to use another S3"


class SigningRequestUnusable(HubUnusable):
    """A certificate signing request cannot be signed."""

    reason = "SIGNING_REQUEST_UNUSABLE"
    next_step = (
        "make one with: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
        "-keyout device.key -out device.csr -subj /CN=NAME"
    )


class CredentialsRefused(AccessRefused):
    """A device gets no credentials."""


class DeviceCertificateAbsent(CredentialsRefused):
    """Who asks for credentials showed no certificate."""

    reason = "DEVICE_CERTIFICATE_ABSENT"
    next_step = "send the device's own certificate and key with the TLS handshake"


class DeviceCertificateUnknown(CredentialsRefused):
    """The certificate is none that this hub has on record."""

    reason = "DEVICE_CERTIFICATE_UNKNOWN"
    next_step = "make the device's certificate with `lightkeeper hub device add`"


class DeviceCertificateRevoked(CredentialsRefused):
    """The certificate was revoked."""

    reason = "DEVICE_CERTIFICATE_REVOKED"
    next_step = "if the device is to come back, make it a new certificate with `lightkeeper hub device add`"


class DeviceCertificateExpired(CredentialsRefused):
    """The certificate is not valid at this time."""

    reason = "DEVICE_CERTIFICATE_EXPIRED"
    next_step = "make the device a new certificate with `lightkeeper hub device add`, or set the hub's clock"


class ThingMismatch(CredentialsRefused):
    """The header x-amzn-iot-thingname does not name the thing that the certificate is attached to."""

    reason = "THING_MISMATCH"
    next_step = "set sagemaker_edge_core_iot_thing_name to the name the certificate was made for"


class RoleAliasClosed(CredentialsRefused):
    """The fleet's role alias is closed: its devices get no credentials."""

    reason = "ROLE_ALIAS_CLOSED"
    next_step = "open it with `lightkeeper hub alias open`, or UpdateDeviceFleet with EnableIotRoleAlias true"


class DeviceUnregistered(CredentialsRefused):
    """The fleet has no device of this thing."""

    reason = "DEVICE_UNREGISTERED"
    next_step = "register the device with this fleet, or use the role alias of the fleet it is in"


class RoleAliasUnknown(ResourceMissing):
    """There is no such role alias."""

    reason = "ROLE_ALIAS_UNKNOWN"
    next_step = "use SageMakerEdge-FLEET, with the name of the device's fleet"


class DeviceAmbiguous(CallInvalid):
    """Several fleets have a device of this name."""

    reason = "DEVICE_AMBIGUOUS"
    next_step = "say which fleet's with --fleet"


class CapturePlaceUnusable(ResourceConflict):
    """A fleet's output location is none where its devices can keep captures."""

    reason = "CAPTURE_PLACE_UNUSABLE"
    next_step = "set the fleet's S3OutputLocation to s3://BUCKET/PREFIX with UpdateDeviceFleet"


class SessionsUnavailable(HubBusy):
    """The object store's token service cannot be used right now."""

    reason = "SESSIONS_UNAVAILABLE"
    next_step = "try again; if it lasts, look whether the S3 in use runs, and what its key or role may do"


class SessionPolicyTooLong(HubBusy):
    """A device's session policy is longer than a token service takes, and cannot be made shorter."""

    reason = "SESSION_POLICY_TOO_LONG"
    next_step = "shorten the bucket's name or the fleet's prefix"


# --- the agent's own -------------------------------------------------------------------------------------------------


class InternalError(AgentError):
    """A fault of the agent or of a model, not of the caller."""


class Unexpected(InternalError):
    """Something nobody foresaw; the agent's log has the details, the answer has not."""

    reason = "UNEXPECTED"
    next_step = "look into the agent's log at this time, and report it"


class ModelRunFailed(InternalError):
    """The model's runtime failed while running."""

    reason = "MODEL_RUN_FAILED"
    next_step = "look into the agent's log; run the model with its own tools on the same input"


class ModelOutOfMemory(InternalError):
    """The model could not get the memory this input needs."""

    reason = "MODEL_OUT_OF_MEMORY"
    next_step = "send smaller inputs, unload another model, or give the agent more memory"


class SpoolBroken(InternalError):
    """The spool cannot be read or written: an I/O error, a read-only file system, a damaged file."""

    reason = "SPOOL_BROKEN"
    next_step = "check the disk under sagemaker_edge_local_data_root_path; predictions go on meanwhile"


class AnswerUnfit(InternalError):
    """The hub made an answer that is not of the service model's shape; its log has the member and the rule."""

    reason = "ANSWER_UNFIT"
    next_step = "look into the hub's log at this time, and report it"


class SpoolTooNew(ConfigurationError):
    """The spool was written by a later release of Lightkeeper; this one does not touch it."""

    reason = "SPOOL_TOO_NEW"
    next_step = "update Lightkeeper, or move the spool folder away: what waits in it then waits for the later release"


class NotImplementedHere(AgentError):
    """A method that this build does not offer."""


class MethodUnknown(NotImplementedHere):
    """The service has no such method."""

    reason = "METHOD_UNKNOWN"
    next_step = "use the methods of proto/agent.proto"


class Unavailable(AgentError):
    """The agent cannot take the call."""


class AgentStopping(Unavailable):
    """The agent is shutting down and takes no new calls."""

    reason = "AGENT_STOPPING"
    next_step = "try again when the agent is back"


class AgentUnreachable(Unavailable):
    """Nobody answers at the address (raised by the client)."""

    reason = "AGENT_UNREACHABLE"
    next_step = "start the agent, and check the address and that your user may open the socket"


class HubUnreachable(Unavailable):
    """Nobody answers at the address that hub.json has."""

    reason = "HUB_UNREACHABLE"
    next_step = "see whether the hub runs; `lightkeeper hub up DIR` starts it"


class CallTimedOut(Unavailable):
    """The agent did not answer within the client's time (raised by the client)."""

    reason = "CALL_TIMED_OUT"
    next_step = "give the call more time, or look in the agent's log for what holds it up"


class Unauthenticated(AgentError):
    """The caller does not prove that it may call."""


class CallerWithoutToken(Unauthenticated):
    """An agent on loopback TCP was called without the token that its file holds, or with an earlier one."""

    reason = "CALLER_WITHOUT_TOKEN"
    next_step = "read the file at the agent's address anew, and send its token with every call: docs/windows.md"
