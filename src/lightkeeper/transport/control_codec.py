"""Between the messages of `control.proto` and the values they stand for, both ways: for the servicer and the client."""

from __future__ import annotations

from lightkeeper.metrics import Reading
from lightkeeper.model import PackageIdentity
from lightkeeper.models.report import Comparison, ModelStatus, OutputComparison, Returned, SwapReport
from lightkeeper.transport import control_pb2 as wire


def report_to_wire(report: SwapReport) -> wire.SwapModelResponse:
    """Return the message of a swap's report."""
    return wire.SwapModelResponse(
        name=report.name,
        old=_package_to_wire(report.old),
        new=_package_to_wire(report.new),
        comparison=None if report.comparison is None else _comparison_to_wire(report.comparison),
        watch_seconds=report.watch_seconds,
    )


def report_from_wire(message: wire.SwapModelResponse) -> SwapReport:
    """Return the report that a message carries."""
    return SwapReport(
        message.name,
        _package_from_wire(message.old),
        _package_from_wire(message.new),
        _comparison_from_wire(message.comparison) if message.HasField("comparison") else None,
        message.watch_seconds,
    )


def status_to_wire(status: ModelStatus) -> wire.ModelStatus:
    """Return the message of a model's status."""
    reading, returned = status.reading, status.returned
    return wire.ModelStatus(
        name=status.name,
        url=status.url,
        package=_package_to_wire(status.package),
        previous=None if status.previous is None else _package_to_wire(status.previous),
        watch_seconds_left=status.watch_seconds_left,
        returned=None
        if returned is None
        else wire.ReturnedVersion(digest=returned.digest, reason=returned.reason, message=returned.message),
        inferences=reading.inferences,
        failures=reading.failures,
        total_seconds=reading.total_seconds,
        slowest_seconds=reading.slowest_seconds,
        last_inference=reading.last_inference,
    )


def status_from_wire(message: wire.ModelStatus) -> ModelStatus:
    """Return the status that a message carries."""
    returned = message.returned
    return ModelStatus(
        message.name,
        message.url,
        _package_from_wire(message.package),
        _package_from_wire(message.previous) if message.HasField("previous") else None,
        message.watch_seconds_left if message.HasField("watch_seconds_left") else None,
        Returned(returned.digest, returned.reason, returned.message) if message.HasField("returned") else None,
        Reading(
            message.inferences,
            message.failures,
            message.total_seconds,
            message.slowest_seconds,
            message.last_inference if message.HasField("last_inference") else None,
        ),
    )


def _package_to_wire(package: PackageIdentity) -> wire.Package:
    return wire.Package(name=package.name, version=package.version, digest=package.digest)


def _package_from_wire(message: wire.Package) -> PackageIdentity:
    return PackageIdentity(message.name, message.version, message.digest)


def _comparison_to_wire(comparison: Comparison) -> wire.Comparison:
    return wire.Comparison(
        source=comparison.source,
        inputs=comparison.inputs,
        old_seconds=comparison.old_seconds,
        new_seconds=comparison.new_seconds,
        outputs=[
            wire.OutputComparison(
                name=output.name,
                absolute_difference=output.absolute_difference,
                relative_difference=output.relative_difference,
                argmax_disagreement=output.argmax_disagreement,
                shapes_differ=output.shapes_differ,
            )
            for output in comparison.outputs
        ],
    )


def _comparison_from_wire(message: wire.Comparison) -> Comparison:
    outputs = tuple(
        OutputComparison(
            output.name,
            output.absolute_difference,
            output.relative_difference,
            output.argmax_disagreement if output.HasField("argmax_disagreement") else None,
            output.shapes_differ,
        )
        for output in message.outputs
    )
    return Comparison(message.source, message.inputs, message.old_seconds, message.new_seconds, outputs)
