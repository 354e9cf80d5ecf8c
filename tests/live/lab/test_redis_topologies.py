"""What the tests of failovers count on."""

from mxweir_ops.lab.place import temporary_directory
from mxweir_ops.lab.process import wait_until
from mxweir_ops.lab.redis_topologies import Cluster, Watched


def test_sentinels_replace_a_master_that_was_killed_by_its_replica():
    with temporary_directory() as directory, Watched(directory) as watched:
        watched.master.cli("SET", "key", 1)
        assert wait_until(lambda: watched.replica.cli("GET", "key") == b"1", 60)
        watched.master.kill()
        assert wait_until(lambda: watched.sentinels[0].chosen() == watched.replica.inet, 60)
        assert wait_until(lambda: watched.replica.info("replication")["role"] == "master", 60)


def test_a_cluster_serves_all_slots_and_a_replica_takes_over_from_its_master():
    with (
        temporary_directory() as directory,
        Cluster(directory, replica=True) as cluster,
    ):
        assert len(cluster.nodes) == 4
        assert [cluster.owner(slot) for slot in (0, 5460, 5461, 10921, 10922, 16383)] == [
            node for node in cluster.masters for _ in range(2)
        ]
        assert cluster.masters[0].cli("CLUSTER", "MYID").decode() == cluster.identity(0)
        cluster.masters[0].kill()
        assert wait_until(lambda: cluster.nodes[3].info("replication")["role"] == "master", 60)
