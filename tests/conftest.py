"""How hypothesis draws: the same cases in each `make test`, others in each campaign (`make fuzz`). And a signal."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from uploader.share import lease

# No shrinking: it may take longer than a test may. No database: a run depends on no other. No deadline and no health
# check by the clock: what is slow is the machine that others use too.
settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("campaign", settings.get_profile("fixed"), derandomize=False)
settings.load_profile("fixed")
# Hypothesis also draws constants that stand in the program's modules that are loaded: then one test alone would see
# other cases than among all, and each change of the program too.
providers._get_local_constants = Constants
lease.ignore_signal()  # as the program does: a test's process asks for leases too
