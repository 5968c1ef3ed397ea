"""The timer wheel, at times that the test names."""

from __future__ import annotations

from openguild_proto.connection.timer_wheel import TICK_SECS, TimerWheel

NOW = 100.0


class Alarm:
    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.timer_tick = -1
        self.rung: list[float] = []

    def next_deadline(self) -> float | None:
        return self.deadline

    def ring(self, now: float) -> None:
        self.rung.append(now)
        self.deadline = None


class Wheel(TimerWheel[Alarm]):
    """A wheel whose alarms ring."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.now = NOW

    def turn_until(self, end: float) -> None:
        while self.now < end:
            self.turn_to(self.now + TICK_SECS)

    def turn_to(self, now: float) -> None:
        self.now = now
        for alarm in self.due(now):
            alarm.ring(now)


def armed(wheel: Wheel, *deadlines: float | None) -> list[Alarm]:
    alarms = [Alarm(deadline) for deadline in deadlines]
    for alarm in alarms:
        wheel.arm(alarm)
    return alarms


def test_rings_once_and_at_most_two_ticks_late() -> None:
    wheel = Wheel()
    (alarm,) = armed(wheel, 103.0)
    wheel.turn_until(110.0)
    assert len(alarm.rung) == 1
    assert 103.0 <= alarm.rung[0] <= 103.0 + 2 * TICK_SECS + 1e-9


def test_a_deadline_that_moved_later_does_not_ring_early() -> None:
    wheel = Wheel()
    (alarm,) = armed(wheel, 101.0)
    alarm.deadline = 105.0
    wheel.turn_until(104.9)
    assert alarm.rung == []
    wheel.turn_until(106.0)
    assert len(alarm.rung) == 1


def test_a_deadline_that_moved_earlier_rings_earlier() -> None:
    wheel = Wheel()
    (alarm,) = armed(wheel, 150.0)
    alarm.deadline = 101.0
    wheel.arm(alarm)
    wheel.turn_until(101.5)
    assert len(alarm.rung) == 1


def test_disarmed_and_idle_objects_are_forgotten() -> None:
    wheel = Wheel()
    alarm, idle = armed(wheel, 101.0, None)
    wheel.disarm(alarm)
    wheel.disarm(alarm)
    wheel.turn_until(103.0)
    assert alarm.rung == []
    assert idle.timer_tick == -1


def test_after_a_stall_everything_that_is_due_rings() -> None:
    wheel = Wheel()
    alarms = armed(wheel, *(100.5 + number for number in range(20)))
    wheel.turn_to(110.0)
    assert [len(alarm.rung) for alarm in alarms] == [1] * 10 + [0] * 10


def test_an_alarm_that_is_set_again_as_it_rings_rings_again() -> None:
    wheel = Wheel()
    (alarm,) = armed(wheel, 101.0)
    for due in wheel.due(102.0):
        due.ring(102.0)
        due.deadline = 104.0
    wheel.turn_until(105.0)
    assert len(alarm.rung) == 2


def test_a_pause_among_those_that_are_due_together() -> None:
    """What is disarmed or armed anew in the pause keeps to that."""
    wheel = Wheel()
    alarms = armed(wheel, *[101.0] * 20)
    due = wheel.due(102.0)
    for _ in range(4):
        next(due).ring(102.0)
    wheel.disarm(alarms[-1])
    wheel.disarm(alarms[-2])
    alarms[-2].deadline = 150.0
    wheel.arm(alarms[-2])
    for alarm in due:
        alarm.ring(102.0)
    assert [len(alarm.rung) for alarm in alarms] == [1] * 18 + [0, 0]
    wheel.now = 102.0
    wheel.turn_until(151.0)
    assert (len(alarms[-2].rung), alarms[-1].rung) == (1, [])


def test_those_behind_one_that_failed_are_due_at_the_next_call() -> None:
    wheel = Wheel()
    alarms = armed(wheel, *[101.0] * 5)
    for alarm in wheel.due(102.0):
        alarm.ring(102.0)
        break  # as where acting on it raises
    wheel.disarm(alarms[1])
    wheel.turn_to(102.0)
    assert [len(alarm.rung) for alarm in alarms] == [1, 0, 1, 1, 1]


def test_a_call_within_a_call_goes_on_behind_it() -> None:
    wheel = Wheel()
    alarms = armed(wheel, *[101.0] * 3, *[101.5] * 2)
    due = wheel.due(102.0)
    next(due).ring(102.0)
    wheel.turn_to(102.0)
    assert list(due) == []
    assert [len(alarm.rung) for alarm in alarms] == [1] * 5
