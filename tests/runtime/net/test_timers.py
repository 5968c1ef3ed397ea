"""The timer wheel, on a clock that the test turns."""

from __future__ import annotations

from openguild_proto.limits import TURN_SECS
from openguild_runtime.net.timers import TICK_SECS, TimerWheel


class Alarm:
    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self.timer_tick = -1
        self.rung: list[float] = []

    def next_deadline(self) -> float | None:
        return self.deadline

    def deadline_passed(self, now: float) -> None:
        self.rung.append(now)
        self.deadline = None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def turn_until(wheel: TimerWheel, clock: Clock, end: float) -> None:
    while clock.now < end:
        clock.now += TICK_SECS
        wheel.turn()


def test_rings_once_and_at_most_two_ticks_late() -> None:
    clock = Clock()
    wheel = TimerWheel(clock)
    alarm = Alarm(103.0)
    wheel.arm(alarm)
    turn_until(wheel, clock, 110.0)
    assert len(alarm.rung) == 1
    assert 103.0 <= alarm.rung[0] <= 103.0 + 2 * TICK_SECS + 1e-9


def test_a_deadline_that_moved_later_does_not_ring_early() -> None:
    clock = Clock()
    wheel = TimerWheel(clock)
    alarm = Alarm(101.0)
    wheel.arm(alarm)
    alarm.deadline = 105.0
    turn_until(wheel, clock, 104.9)
    assert alarm.rung == []
    turn_until(wheel, clock, 106.0)
    assert len(alarm.rung) == 1


def test_a_deadline_that_moved_earlier_rings_earlier() -> None:
    clock = Clock()
    wheel = TimerWheel(clock)
    alarm = Alarm(150.0)
    wheel.arm(alarm)
    alarm.deadline = 101.0
    wheel.arm(alarm)
    turn_until(wheel, clock, 101.5)
    assert len(alarm.rung) == 1


def test_disarmed_and_idle_objects_are_forgotten() -> None:
    clock = Clock()
    wheel = TimerWheel(clock)
    alarm, idle = Alarm(101.0), Alarm(None)
    wheel.arm(alarm)
    wheel.arm(idle)
    wheel.disarm(alarm)
    wheel.disarm(alarm)
    turn_until(wheel, clock, 103.0)
    assert alarm.rung == []
    assert idle.timer_tick == -1


def test_a_stalled_loop_fires_everything_that_is_due() -> None:
    clock = Clock()
    wheel = TimerWheel(clock)
    alarms = [Alarm(100.5 + i) for i in range(20)]
    for alarm in alarms:
        wheel.arm(alarm)
    clock.now = 110.0
    wheel.turn()
    assert [len(alarm.rung) for alarm in alarms] == [1] * 10 + [0] * 10


def test_a_deadline_that_fails_leaves_the_others_alone() -> None:
    class Broken(Alarm):
        def deadline_passed(self, now: float) -> None:
            raise RuntimeError("a defect")

    clock = Clock()
    wheel = TimerWheel(clock)
    broken, alarm = Broken(103.0), Alarm(103.0)
    wheel.arm(broken)
    wheel.arm(alarm)
    turn_until(wheel, clock, 105.0)
    assert len(alarm.rung) == 1


def test_thousands_that_are_due_together_take_several_turns() -> None:
    class Slow(Alarm):
        def deadline_passed(self, now: float) -> None:
            super().deadline_passed(now)
            clock.now += TURN_SECS / 4

    clock = Clock()
    wheel = TimerWheel(clock)
    alarms = [Slow(101.0) for _ in range(20)]
    for alarm in alarms:
        wheel.arm(alarm)
    clock.now = 102.0
    assert not wheel.turn()
    rung = sum(len(alarm.rung) for alarm in alarms)
    assert rung == 4
    wheel.disarm(alarms[-1])
    alarms[-2].deadline = 150.0
    wheel.disarm(alarms[-2])
    wheel.arm(alarms[-2])
    turns = 1
    while not wheel.turn():
        turns += 1
    assert turns == 4
    assert [len(alarm.rung) for alarm in alarms] == [1] * 18 + [0, 0]
    turn_until(wheel, clock, 151.0)
    assert len(alarms[-2].rung) == 1
