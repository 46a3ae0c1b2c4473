"""The static report of a recorded Triton launch, for any target."""

from __future__ import annotations

from tests.evidence.launches import Launch
from tests.evidence.static.report import Report, amd_report, cubin_reports
from tests.evidence.triton_compile import compile_launch


def report_launch(launch: Launch, target: str) -> Report:
    """What the code for this target uses."""
    compiled = compile_launch(launch, target)
    if target.startswith("gfx"):
        return amd_report(compiled.text("amdgcn"), compiled.threads, compiled.shared, target)
    reports = cubin_reports(compiled.files["cubin"].read_bytes(), target, compiled.threads, compiled.shared)
    (report,) = reports.values()
    return report
