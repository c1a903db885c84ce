"""How hypothesis draws: the same cases in each `make test`, others in each campaign (`make fuzz`). And a signal."""

from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from uploader.share import lease

# No shrinking: it may take longer than a test may. No database: a run depends on no other. No deadline and no health
# check by the clock: the machine may be slow because others use it.
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
# Hypothesis would also draw constants from the loaded modules of the program: a test alone would then see other cases
# than among all tests, and other cases after each change of the program.
providers._get_local_constants = Constants
lease.ignore_signal()  # as the program does: a test's process asks for leases too
