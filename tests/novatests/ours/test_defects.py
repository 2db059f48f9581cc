"""One test at least for each defect that was measured of the in-tree driver, named after it."""

import contextlib
import os
from unittest import mock

import fixtures
from lxml import etree
from nova import context, exception
from nova.tests.fixtures import libvirt as fakelibvirt
from nova.virt.libvirt import host as host_module
from novatests.ours import base

from vpmem_driver import ledger


def _fail(*_args, **_kwargs):
    raise exception.NovaException("this host is in trouble now")


class DefectTestCase(base.VPMEMTestCase):
    def force_down(self, host, down=True):
        service = self.api.get_services(binary="nova-compute", host=host.name)[0]
        self.api.put_service_force_down(service["id"], down)

    def take_down(self, host):
        self.computes[host.name].stop()
        self.force_down(host)

    def bring_back(self, host):
        self.force_down(host, down=False)
        self.restart_host(host)

    def run_periodic(self, host):
        self.computes[host.name].manager.update_available_resource(context.get_admin_context())

    def reap(self, host):
        """Nova ends the guests there of servers that are deleted."""
        self.flags(running_deleted_instance_timeout=0)
        self.computes[host.name].manager._cleanup_running_deleted_instances(context.get_admin_context())

    def evacuate(self, server, **kwargs):
        return self._evacuate_server(server, expected_state="SHUTOFF", **kwargs)

    @contextlib.contextmanager
    def on(self, host, method, function=_fail):
        with mock.patch.object(self.computes[host.name].driver, method, side_effect=function):
            yield


class OneHostTest(DefectTestCase):
    def test_row_1_resume_at_host_boot_keeps(self):
        self.flags(resume_guests_state_on_host_boot=True)
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        connection = self.computes[host.name].driver._host.get_connection()
        connection.lookupByUUIDString(server["id"]).destroy()
        self.restart_host(host)
        self.assert_kept(written)
        self.assertEqual(list(written), self.devices(server, host))

    def test_row_1_hard_reboot_keeps(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL,SMALL", host)
        written = self.write(server, host)
        self._reboot_server(server, hard=True)
        self.assert_kept(written)
        self.assertEqual(list(written), self.devices(server, host))

    def test_row_4_one_device_that_fails_does_not_stop_the_others(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL,SMALL", host)
        first, second = sorted(self.write(server, host))
        with self.held_open(first):
            self._delete_server(server)
            self.assert_wiped(host, [second])
            self.assert_state(("dirty", None), host, first.name)

    def test_row_9_a_periodic_update_in_the_build_window_does_not_lose_the_claim(self):
        host = self.start_host(1, SMALL=2)
        others = []

        def image(*args, **kwargs):
            if not others:
                others.append(None)
                self.run_periodic(host)
                others[0] = self.boot("SMALL", host)
            return self._image(*args, **kwargs)

        base.libvirt_driver.LibvirtDriver._create_image.side_effect = image
        server = self.boot("SMALL", host)
        self.assertFalse(set(self.devices(server, host)) & set(self.devices(others[0], host)))

    def test_row_13_spawn_and_wipe_both_fail(self):
        host = self.start_host(1, SMALL=1)
        path = host.path("small0")
        with self.held_open(path):
            server = self.boot("SMALL", host, expected_state="ERROR")
        self.assert_holds([], host, server)
        self.assertNotEqual("clean", host.states()["small0"][0])
        second = self.boot("SMALL", host)
        self.assertEqual([path], self.devices(second, host))
        self.assert_zero([path])

    def test_row_14_deleted_while_the_host_was_down(self):
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        self.take_down(host)
        self._delete_server(server)
        self.assert_kept(written)
        self.bring_back(host)
        # The old guest still runs: it is not wiped under its feet, and nobody else gets it.
        self.assert_kept(written)
        self.assert_holds(["small0"], host, server)
        self.reap(host)
        self.assert_wiped(host, written)

    def test_row_14_deleted_while_the_host_was_down_and_its_guest_gone(self):
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        connection = self.computes[host.name].driver._host.get_connection()
        self.take_down(host)
        self._delete_server(server)
        domain = connection.lookupByUUIDString(server["id"])
        domain.destroy()
        domain.undefine()
        self.bring_back(host)
        self.assert_wiped(host, written)

    def test_row_16_a_resume_that_fails_keeps(self):
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        self._suspend_server(server)
        with self.on(host, "_create_guest"):
            self.api.post_server_action(server["id"], {"resume": None})
            self.wait_for_error(server)
        self.assert_kept(written)
        self.assert_holds(["small0"], host, server)

    def test_row_17_a_namespace_in_use_that_is_configured_no_more(self):
        host = self.start_host(1, SMALL=2)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        (used,) = written
        unused = ({"small0", "small1"} - {used.name}).pop()
        host.pmem_namespaces = [f"SMALL:{unused}"]
        self.restart_host(host)
        self.assert_kept(written)
        self._delete_server(server)
        self.assert_wiped(host, written)

    def test_row_18_what_ndctl_may_say(self):
        host = self.start_host(1, SMALL=1)
        for name in ("", ".hidden", "odd"):
            (host.directory / f"{name or 'empty'}").write_bytes(b"x" * (4097 if name else 0))
        self.restart_host(host)
        server = self.boot("SMALL", host)
        self.assertEqual([host.path("small0")], self.devices(server, host))

    def test_row_19_labels_are_told_by_their_resource_class(self):
        host = self.start_host(1, small=1)
        server = self.boot("SMALL", host)
        self.assertEqual(["small0"], [path.name for path in self.devices(server, host)])
        self.assert_zero(self.devices(server, host))

    def test_row_21_the_domain_says_node_label_and_whether_it_is_pmem(self):
        host = self.start_host(1, SMALL=1)
        defined = []
        write = host_module.Host.write_instance_config

        def spy(driver_host, xml):  # fakelibvirt itself keeps a fixed text for these devices
            defined.append(etree.fromstring(xml))
            return write(driver_host, xml)

        with mock.patch.object(host_module.Host, "write_instance_config", spy):
            self.boot("SMALL", host)
        (memory,) = defined[-1].iterfind("devices/memory")
        self.assertEqual(str(base.SIZE // 1024), memory.findtext("target/size"))
        self.assertEqual("2048", memory.findtext("target/label/size"))
        self.assertEqual("0", memory.findtext("target/node"))
        self.assertIsNone(memory.find("source/pmem"), "a file without DAX")
        maximum = defined[-1].find("maxMemory")
        self.assertEqual("1", maximum.get("slots"))
        self.assertEqual(512 * 1024 + base.SIZE // 1024, int(maximum.text))

    def test_row_24_delete_does_not_wait_for_the_wipe(self):
        host = self.start_host(1, SMALL=1)
        server = self.boot("SMALL", host)
        written = self.write(server, host)
        self.flags(wipe_rate=1, group="vpmem")
        self.restart_host(host)
        self._delete_server(server)
        self.assert_state(("dirty", None), host, "small0")
        self.assertTrue(any(host.path("small0").read_bytes()), "the wipe was waited for: it takes seconds")
        self.assert_wiped(host, written)


class RenumberedTest(DefectTestCase):
    def setUp(self):
        super().setUp()
        self.host = self.start_host(1, SMALL=2)
        self.server = self.boot("SMALL", self.host)
        ((path, pattern),) = self.write(self.server, self.host).items()
        self.path = self.host.directory / "node0" / path.name
        self.path.parent.mkdir()
        path.rename(self.path)
        self.written = {self.path: pattern}
        self.restart_host(self.host)

    def test_row_8_what_is_in_use_is_not_given_to_another(self):
        other = self.boot("SMALL", self.host)
        self.assert_kept(self.written)
        self.assertNotIn(self.path, self.devices(other, self.host))
        self.boot("SMALL", self.host, expected_state="ERROR")

    def test_row_22_a_start_resolves_the_path_anew(self):
        self._reboot_server(self.server, hard=True)
        self.assertEqual([self.path], self.devices(self.server, self.host))
        self.assert_kept(self.written)


class TwoHostsTest(DefectTestCase):
    def setUp(self):
        super().setUp()
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=3)

    def test_row_2_the_next_tenant_gets_nothing_of_what_was_resized_away(self):
        server = self.boot("SMALL,SMALL", self.source)
        written = self.write(server, self.source)
        self._resize_server(server, self.flavor("SMALL", **{"vpmem:on_resize": "discard"}))
        self._confirm_resize(server)
        other = self.boot("SMALL,SMALL", self.source)
        self.assertEqual(set(written), set(self.devices(other, self.source)))
        self.assert_zero(written)

    def test_row_3_the_source_of_an_evacuated_instance_returns(self):
        server = self.boot("SMALL", self.source)
        neighbour = self.boot("SMALL", self.source)
        (name,) = [path.name for path in self.devices(neighbour, self.source)]
        blockers = []  # so that it gets the neighbour's name on the destination
        while {path.name for blocker in blockers for path in self.devices(blocker, self.dest)} != (
            {"small0", "small1", "small2"} - {name}
        ):
            blockers.append(self.boot("SMALL", self.dest))
            taken = self.devices(blockers[-1], self.dest)
            if name in {path.name for path in taken}:
                self._delete_server(blockers.pop())
                self.assert_wiped(self.dest, taken)
                break
        mine, theirs = self.write(server, self.source), self.write(neighbour, self.source)
        self.take_down(self.source)
        server = self.evacuate(server, expected_host=self.dest.name)
        self.assert_zero(self.devices(server, self.dest))
        self.restart_host(self.source)
        self.assert_kept(theirs)
        self.assert_wiped(self.source, mine)

    def test_row_5_a_rebuild_after_a_failed_resize(self):
        server = self.boot("SMALL", self.source)
        neighbour = self.boot("SMALL", self.source)
        theirs = self.write(neighbour, self.source)
        (path,) = self.write(server, self.source)
        with self.on(self.source, "migrate_disk_and_power_off"):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL,SMALL")}})
            server = self.wait_for_error(server)
        self._rebuild_server(server, base.IMAGE)
        self.assertEqual([path], self.devices(server, self.source))
        self.assert_zero([path])
        self._delete_server(server)
        self.assert_kept(theirs)

    def test_row_6_deleted_before_the_destination_has_heard_of_it(self):
        server = self.boot("SMALL", self.source)
        mine = self.write(server, self.source)
        others = [self.boot("SMALL", self.dest) for _ in range(2)]
        theirs = [self.write(other, self.dest) for other in others]
        with mock.patch("nova.compute.manager.ComputeManager.finish_resize", autospec=True):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL", x="y")}})
            self.wait_for(lambda: self.instance(server).task_state == "resize_migrated", "resize_migrated")
            # Its record is the source's, its host the destination: a restart must not take the names for its own.
            self.restart_host(self.dest)
            (arrived,) = self.dest.holds(server)
            self.assertTrue(self.dest.path(arrived).read_bytes() == next(iter(mine.values())))
            self._delete_server(server)
        self.assert_wiped(self.dest, [self.dest.path(arrived)])
        for written in theirs:
            self.assert_kept(written)
        self.run_periodic(self.source)
        self.assert_kept(mine)  # the domain is still defined there
        self.reap(self.source)
        self.assert_wiped(self.source, mine)

    def test_row_7_a_resize_that_fails_at_the_end(self):
        server = self.boot("SMALL", self.source)
        mine = self.write(server, self.source)
        with self.on(self.dest, "plug_vifs"):
            self.api.post_server_action(server["id"], {"resize": {"flavorRef": self.flavor("SMALL,SMALL")}})
            server = self.wait_for_error(server)
        self.assert_kept(mine)
        self.run_periodic(self.source)
        self.run_periodic(self.dest)
        self.assert_kept(mine)
        self.api.post_server_action(server["id"], {"reboot": {"type": "HARD"}})
        self._wait_for_state_change(server, "ACTIVE")
        self.assertEqual(2, len(self.devices(server, self.dest)))
        self._delete_server(server)
        self.run_periodic(self.source)
        self.assert_kept(mine)  # the domain is still defined there
        self.reap(self.source)
        self.assert_wiped(self.source, mine)

    def test_row_10_a_periodic_update_while_an_instance_is_evacuated(self):
        server = self.boot("SMALL", self.source)
        self.api.post_server_action(server["id"], {"os-resetState": {"state": "error"}})
        self.take_down(self.source)
        others = []

        def image(*args, **kwargs):
            if not others:
                others.append(None)
                self.run_periodic(self.dest)
                others[0] = self.boot("SMALL", self.dest)
            return self._image(*args, **kwargs)

        base.libvirt_driver.LibvirtDriver._create_image.side_effect = image
        server = self._evacuate_server(server, expected_host=self.dest.name, expected_state="ACTIVE")
        self.assertFalse(set(self.devices(server, self.dest)) & set(self.devices(others[0], self.dest)))

    def test_row_15_an_evacuation_that_failed_leaves_nothing_behind(self):
        server = self.boot("SMALL", self.source)
        mine = self.write(server, self.source)
        self.take_down(self.source)
        with self.on(self.dest, "plug_vifs"):
            self._evacuate_server(server, expected_state="ERROR", expected_migration_status="failed")
        self.assert_holds([], self.dest, server)
        self.assert_kept(mine)


class LiveMigrationTest(DefectTestCase):
    fails = False
    migrated = False

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.migrateToURI3", self._migrate))
        self.source = self.start_host(1, SMALL=2)
        self.dest = self.start_host(2, SMALL=2)
        self.server = self.boot("SMALL,SMALL", self.source)
        self.written = self.write(self.server, self.source)

    def _migrate(self, domain, destination, params, flags):
        self.migrated = True
        if self.fails:
            domain.fail_job()
            return
        host = destination.split("//")[1].split("/")[0]
        connection = self.computes[host].driver._host.get_connection()
        connection.createXML(params["destination_xml"], 0)
        for old, new in zip(
            self.devices(self.server, self.source), self.devices(self.server, self.hosts[host]), strict=True
        ):
            new.write_bytes(old.read_bytes())  # as QEMU does
        domain.complete_job()

    def test_it_moves_and_the_source_is_wiped(self):
        self._live_migrate(self.server)
        new = self.devices(self.server, self.dest)
        self.assertEqual(list(self.written.values()), [path.read_bytes() for path in new])
        self.assert_holds(sorted(path.name for path in new), self.dest, self.server)
        self.assert_holds([], self.source, self.server)
        self.assert_wiped(self.source, self.written)

    def test_row_20_another_memory_device_comes_first(self):
        describe = fakelibvirt.Domain.XMLDesc

        def with_dimm(domain, flags):
            xml = etree.fromstring(describe(domain, flags))
            dimm = etree.fromstring("<memory model='dimm'><target><size>1024</size></target></memory>")
            xml.find("devices").insert(0, dimm)
            return etree.tostring(xml, encoding="unicode")

        self.useFixture(fixtures.MonkeyPatch("nova.tests.fixtures.libvirt.Domain.XMLDesc", with_dimm))
        self._live_migrate(self.server)
        new = self.devices(self.server, self.dest)
        self.assertEqual(list(self.written.values()), [path.read_bytes() for path in new])

    def test_row_11_a_rollback_gives_back_at_the_destination_and_keeps_at_the_source(self):
        self.fails = True
        self._live_migrate(self.server, migration_expected_state="failed")
        self.wait_for(lambda: not self.dest.holds(self.server), "given back at the destination")
        self.assert_wiped(self.dest, [self.dest.path("small0"), self.dest.path("small1")])
        self.assert_kept(self.written)
        self.assertEqual(2, len(self.source.holds(self.server)))

    def test_other_hardware_is_refused_before_libvirt_migrates_and_both_hosts_stay_as_they_were(self):
        records = ledger.Ledger(self.source.state_path)
        with records.transaction():
            records._execute("UPDATE namespace SET label_size = 0 WHERE owner = ?", (self.server["id"],))
        records.close()
        self._live_migrate(self.server, migration_expected_state="error")
        self.assertEqual([], self.dest.holds(self.server))
        self.assert_kept(self.written)
        self.assertEqual(2, len(self.source.holds(self.server)))
        self.assertFalse(self.migrated, "libvirt was not asked to migrate")

    def test_row_12_a_wipe_that_fails_at_the_source_does_not_spoil_the_migration(self):
        first, second = sorted(self.written)
        with self.held_open(first):
            self._live_migrate(self.server)
            self.assert_wiped(self.source, [second])
            self.assert_state(("dirty", None), self.source, first.name)
        self.assertEqual(2, len(self.devices(self.server, self.dest)))


class NumaTest(DefectTestCase):
    def test_row_23_the_device_is_on_the_cell_of_its_host_node(self):
        host = base.Host(self.root, 1, {})
        for node in (0, 1):
            (host.directory / f"node{node}").mkdir()
            path = host.make(f"node{node}/far{node}")
            self.assertTrue(path.exists())
        host.pmem_namespaces = ["FAR:far1"]
        self.hosts[host.name] = host
        self.configure(host)
        self.flags(cpu_dedicated_set="0-7", group="compute")
        self.start_compute(
            hostname=host.name,
            host_info=fakelibvirt.HostInfo(cpu_nodes=2, cpu_sockets=1, cpu_cores=2, cpu_threads=2),
        )
        flavor = self._create_flavor(
            vcpu=2,
            memory_mb=512,
            disk=1,
            ephemeral=0,
            extra_spec={"hw:pmem": "FAR", "hw:numa_nodes": "2", "hw:cpu_policy": "dedicated"},
        )
        server = self._create_server(flavor_id=flavor, host=host.name, networks="none")
        domain = self.domain(server, host)
        (cell,) = [
            memnode.get("cellid") for memnode in domain.iterfind("numatune/memnode") if memnode.get("nodeset") == "1"
        ]
        self.assertEqual(cell, domain.findtext("devices/memory/target/node"))
        self.assertTrue(
            os.path.samefile(host.directory / "node1" / "far1", domain.findtext("devices/memory/source/path"))
        )
