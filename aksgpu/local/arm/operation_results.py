"""Request handlers for polling a long-running operation."""

from __future__ import annotations

from aksgpu.local.arm.arm_errors import refusal
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Answer, Call, Context
from aksgpu.local.arm.resource_ids import operations_path


def get_status(context: Context, call: Call) -> Answer:
    """Handle ``GET .../operations/{operation}``."""
    operation = _get_operation(context, call)
    shown = {key: operation[key] for key in ("status", "startTime", "endTime", "error") if key in operation}
    identity = f"{operations_path(operation)}/operations/{operation['id']}"
    headers = context.operations.retry_after(operation) if operation["status"] == "InProgress" else {}
    return Answer(200, {"id": identity, "name": operation["id"], **shown}, headers)


def get_result(context: Context, call: Call) -> Answer:
    """Handle ``GET .../operationresults/{operation}``: 202 while it is in progress, then 204 or the error."""
    operation = _get_operation(context, call)
    if operation["status"] == "InProgress":
        address = f"{call.base_url}{call.path['raw']}"
        return Answer(202, None, {"Location": address, **context.operations.retry_after(operation)})
    if operation["status"] != "Succeeded":
        return Answer(409, {"error": operation["error"]})
    return Answer(204)


def _get_operation(context: Context, call: Call) -> Document:
    operation = context.state.operations.get(call.path["operation"].lower())
    if operation is None:
        raise refusal("no_operation", name=call.path["operation"])
    return operation
