from heliostat_sim.world.loop import EventLoop


def test_actions_run_in_order_of_time_then_of_asking() -> None:
    """Earlier instants come first, those of one instant as they were asked for."""
    loop, seen = EventLoop(), []
    for name, at in (("c", 2.0), ("a", 1.0), ("d", 2.0), ("b", 1.0)):
        loop.at(at, lambda name=name: seen.append((loop.now, name)))
    loop.run()
    assert seen == [(1.0, "a"), (1.0, "b"), (2.0, "c"), (2.0, "d")]


def test_an_action_may_ask_for_another_at_the_same_instant() -> None:
    """It runs after those that were asked for before, and a past instant counts as now."""
    loop, seen = EventLoop(), []
    loop.at(1.0, lambda: loop.at(0.5, lambda: seen.append(("late", loop.now))))
    loop.at(1.0, lambda: loop.after(0.0, lambda: seen.append(("later", loop.now))))
    loop.at(1.0, lambda: seen.append(("first", loop.now)))
    loop.run()
    assert seen == [("first", 1.0), ("late", 1.0), ("later", 1.0)]


def test_a_run_ends_at_its_instant() -> None:
    """What is due at the end still runs, what is due later does not, and the clock stands there."""
    loop, seen = EventLoop(), []
    loop.at(3.0, lambda: seen.append("at the end"))
    loop.at(3.1, lambda: seen.append("too late"))
    loop.run(until=3.0)
    assert seen == ["at the end"]
    assert loop.now == 3.0
