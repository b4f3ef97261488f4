"""A database whose schema is not the program's stops the start, and says why."""
from harness.stack import DEADLINE_S, Stack


def rename(stack, old, new):
    with stack.db() as connection:
        connection.cursor().execute(f"ALTER TABLE jitrca.device RENAME COLUMN {old} TO {new}")


def test_a_schema_that_does_not_fit_stops_the_start(cluster):
    with Stack(cluster) as stack:
        stack.stop()
        rename(stack, "reason", "why")
        stack.start(wait=False)
        assert stack.process.wait(DEADLINE_S) != 0
        failed = [line for line in stack.events() if line.get("code") == "schema_unfit"]
        # Once: a restart would change nothing.
        assert len(failed) == 1 and "device" in str(failed[0]), stack.log_tail()
        rename(stack, "why", "reason")
        stack.start()
