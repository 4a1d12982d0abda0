"""What the report of an early warning says of monitors whose scores are noise, by hand."""

from emlab.detection import Warned
from emlab.evaluation import clustered_rate
from emlab.experiments.early_warning.report import EarlyWarningFindings, early_warning_lead, early_warning_summary


def warned(alarms, quiet=True, monitor="noise"):
    return Warned(monitor, 1.0, clustered_rate([0 if quiet else 2], [10]), tuple(alarms), (20.0, 20.0, 20.0), quiet)


def found(noise):
    projection = warned((10.0, 10.0, 20.0), monitor="projection")
    return EarlyWarningFindings(
        "m", ("code", "medicine"), "bad_law", 8, 0.05, 0.01, (projection,), (), tuple(noise), (), (), (), ()
    )


def test_noise_is_counted_among_what_is_quiet():
    # Of the quiet ones 19 are early on none and one on two; of the loud ones all are early on all.
    noise = [warned((None, 20.0, None))] * 19 + [warned((10.0, 10.0, 20.0))] + [warned((0.0, 0.0, 0.0), False)] * 5
    (line,) = (line for line in early_warning_lead(found(noise)) if "noise" in line)
    assert line == (
        "Along steps, noise (25 monitors): 20 of them quiet; these are earlier on 0.1 (95th percentile 0) and with the "
        "behaviour on 1.0 (95th percentile 1) of 3 on average."
    )
    summary = early_warning_summary(found(noise))
    assert summary["noise"] == {"steps": line.removeprefix("Along steps, ").removesuffix(".")}
    assert summary["warned"]["steps"]["projection"] == {"quiet": True, "earlier": 2, "ties": 1, "of": 3}
    assert summary["warned"]["steps"]["noise 24"] == {"quiet": False, "earlier": 0, "ties": 0, "of": 3}


def test_noise_that_is_never_quiet_has_lost():
    (line,) = (line for line in early_warning_lead(found([warned((0.0,) * 3, False)] * 2)) if "noise" in line)
    assert line == "Along steps, noise (2 monitors): 0 of them quiet, so it has lost."
