"""The simulation of many nodes: what it counts is what must follow from its rules.  No test here measures anything."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from bench.simulate import Case, Simulation, run, table
from bench.world import DAY, PEAK, POWER, Pull, World, _wave


@define
class Rollout(World):
    """24 machines pull one new image at once."""

    def pulls(self, days: float) -> Iterator[Pull]:
        return (Pull(0.1 * number, 0, 0) for number in range(24))


def rolled_out(**case: object) -> Simulation:
    """A roll-out on three nodes, run through."""
    simulation = Simulation(Case(1e4, 3, **case), world=Rollout(10_000, 12))  # type: ignore[arg-type]  # a case's fields
    simulation.run(0.0)
    return simulation


class SimulationTests(SynchronousTestCase):
    def test_hash_on_the_digest(self) -> None:
        """Where the balancer hashes on the digest, each blob is fetched once, as live with three nodes."""
        day = rolled_out(hashing=True).day
        self.assertEqual(set(day.fetched.values()), {1})
        self.assertEqual(day.pulls, 24)

    def test_any_node(self) -> None:
        """Where it does not, each node fetches a blob once, and none twice."""
        day = rolled_out(hashing=False).day
        self.assertEqual(set(day.fetched.values()), {3})

    def test_bucket(self) -> None:
        """With a bucket, the other nodes find there what the first has put."""
        day = rolled_out(hashing=False, archive=True).day
        self.assertEqual(set(day.fetched.values()), {1})
        self.assertGreater(day.from_bucket, 0)

    def test_what_is_sent_comes_from_somewhere(self) -> None:
        """Bytes sent are hits, the bucket's or the upstream's, and nothing else."""
        for archive in (False, True):
            day = rolled_out(hashing=False, archive=archive).day
            self.assertEqual(day.sent, day.hit + day.from_bucket + day.upstream)

    def test_small_disk(self) -> None:
        """A disk that holds less keeps less, and never more than it has."""
        most = Simulation(Case(2e3, 1), seed=3)
        most.run(0.5, 0.5)
        least = Simulation(Case(2e3, 1, disk=2e9), seed=3)
        least.run(0.5, 0.5)
        self.assertLessEqual(least.nodes[0].used, 2e9)
        self.assertEqual(least.nodes[0].used, sum(least.nodes[0].cached.values()))
        self.assertLess(least.day.hit, most.day.hit)
        self.assertEqual(least.day.sent, most.day.sent)

    def test_seed(self) -> None:
        """The same case has the same figures again."""
        case = Case(1e3, 2, hashing=False)
        self.assertEqual(run(case, 0.2), run(case, 0.2))
        self.assertIn("| 1,000 | 2 | any | none |", table([run(case, 0.2)]))


class WorldTests(SynchronousTestCase):
    def test_a_day(self) -> None:
        """A day has the pulls that were asked for, in the order of their times, and the peak that was said."""
        pulls = [pull.at for pull in World(20_000, 300).pulls(1.0)]
        self.assertEqual(pulls, sorted(pulls))
        self.assertLess(abs(len(pulls) / 20_000 - 1.0), 0.1)
        self.assertGreater(POWER, 1.0)
        self.assertLess(abs(max(_wave(hour * DAY / 24) for hour in range(24)) - PEAK), 0.1)

    def test_versions(self) -> None:
        """A new version has new upper layers, and keeps the others; it came out when the version says."""
        world = World(1000, 24)
        old, new = (dict(world.blobs(5, version)) for version in (1, 2))
        self.assertEqual(len(old.keys() & new.keys()), 5)
        self.assertEqual(len(new.keys() - old.keys()), 2)
        born = world.born(5, 2)
        self.assertEqual((world.version(5, born + 1), world.version(5, born - 1)), (2, 1))
