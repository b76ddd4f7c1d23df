"""Every operation the hub offers, by the name the service model gives it.

A handler takes the call's context and its input, which fits the operation's shape, and returns the answer, which must
fit its shape too; times are integers in milliseconds both ways. It raises what stands below `HubRefusal`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightkeeper.hub import (
    compilation,
    deployments,
    devices,
    fleets,
    heartbeats,
    packaging,
    plans,
    registration,
    report,
    stages,
    tags,
)
from lightkeeper.hub.context import Context

Handler = Callable[[Context, Mapping[str, Any]], dict[str, Any]]

HANDLERS: Mapping[str, Handler] = {
    "CreateDeviceFleet": fleets.create,
    "DescribeDeviceFleet": fleets.describe,
    "UpdateDeviceFleet": fleets.update_fleet,
    "DeleteDeviceFleet": fleets.delete_fleet,
    "ListDeviceFleets": fleets.list_fleets,
    "GetDeviceFleetReport": report.report,
    "RegisterDevices": devices.register,
    "DescribeDevice": devices.describe,
    "ListDevices": devices.list_devices,
    "UpdateDevices": devices.update_devices,
    "DeregisterDevices": devices.deregister,
    "AddTags": tags.add,
    "ListTags": tags.list_tags,
    "DeleteTags": tags.remove,
    "CreateCompilationJob": compilation.create,
    "DescribeCompilationJob": compilation.describe,
    "ListCompilationJobs": compilation.list_jobs,
    "StopCompilationJob": compilation.stop,
    "DeleteCompilationJob": compilation.delete,
    "CreateEdgePackagingJob": packaging.create,
    "DescribeEdgePackagingJob": packaging.describe,
    "ListEdgePackagingJobs": packaging.list_jobs,
    "StopEdgePackagingJob": packaging.stop,
    "CreateEdgeDeploymentPlan": plans.create,
    "DescribeEdgeDeploymentPlan": plans.describe,
    "ListEdgeDeploymentPlans": plans.list_plans,
    "DeleteEdgeDeploymentPlan": plans.delete_plan,
    "CreateEdgeDeploymentStage": stages.create,
    "StartEdgeDeploymentStage": stages.start,
    "StopEdgeDeploymentStage": stages.stop,
    "DeleteEdgeDeploymentStage": stages.delete,
    "ListStageDevices": stages.list_devices,
    "GetDeviceRegistration": registration.get,
    "GetDeployments": deployments.get,
    "SendHeartbeat": heartbeats.send,
}
