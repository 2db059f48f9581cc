"""What the controller has when it starts for the first time: databases, users, and the catalog of services."""

import concurrent.futures

from tests.cluster import controller
from tests.cluster.host import Host
from tests.cluster.settings import PASSWORD

_EMPTY = r"""
rm -rf /var/lib/mysql/*
mariadb-install-db --user=mysql --auth-root-authentication-method=socket --skip-test-db > /dev/null
"""

_DATABASES = r"""
for name in keystone glance placement neutron nova_api nova nova_cell0; do
    echo "CREATE DATABASE $name CHARACTER SET utf8mb3;"
done | mariadb
echo "GRANT ALL ON *.* TO openstack@'%' IDENTIFIED BY '$1';" | mariadb
"""

_MESSAGES = r"""
rabbitmqctl() { command rabbitmqctl --node rabbit@localhost --quiet "$@"; }
rabbitmqctl await_startup
rabbitmqctl add_user openstack "$1"
rabbitmqctl set_permissions openstack '.*' '.*' '.*'
"""

_IDENTITY = r"""
keystone-manage db_sync
keystone-manage fernet_setup --keystone-user keystone --keystone-group keystone
keystone-manage credential_setup --keystone-user keystone --keystone-group keystone
keystone-manage bootstrap --bootstrap-password "$1" --bootstrap-region-id RegionOne \
    --bootstrap-admin-url http://controller:5000/v3 --bootstrap-internal-url http://controller:5000/v3 \
    --bootstrap-public-url http://controller:5000/v3
"""

_NOVA_TABLES = r"""
nova-manage api_db sync
nova-manage cell_v2 map_cell0
nova-manage cell_v2 create_cell --name cell1
nova-manage db sync
"""

_NEUTRON_TABLES = r"""
cd /etc/neutron
neutron-db-manage --config-file neutron.conf --config-file plugins/ml2/ml2_conf.ini upgrade head
"""

#: Users, and where services are. Python, as each call of the client takes seconds.
_CATALOG = r"""
import openstack
import sys

cloud = openstack.connect(
    auth_url="http://controller:5000/v3", username="admin", password=sys.argv[1], project_name="admin",
    user_domain_name="Default", project_domain_name="Default", region_name="RegionOne",
).identity
project = cloud.create_project(name="service", domain_id="default")
user = cloud.create_user(name="openstack", password=sys.argv[1], default_project_id=project.id, domain_id="default")
roles = {role.name: role for role in cloud.roles()}
for name in ("admin", "service"):
    role = roles.get(name) or cloud.create_role(name=name)
    cloud.assign_project_role_to_user(project, user, role)
for kind, port, path in (
    ("image", 9292, ""), ("placement", 8778, ""), ("network", 9696, ""), ("compute", 8774, "/v2.1"),
):
    service = cloud.create_service(name=kind, type=kind)
    for interface in ("public", "internal"):
        url = f"http://controller:{port}{path}"
        cloud.create_endpoint(service_id=service.id, interface=interface, region_id="RegionOne", url=url)
"""

#: In this order nothing is lost, and nothing has to be recovered.
_STOP = r"""
rabbitmqctl --node rabbit@localhost --quiet stop
mariadb-admin shutdown
rm -rf /var/log/cluster
"""


def fill(host: Host) -> None:
    """Make all of it on a host that is on and has nothing yet, and stop what was started for it."""

    def shell(script: str, user: str = "root") -> None:
        host.run("sh", "-ec", script, "sh", PASSWORD, user=user)

    shell(_EMPTY)
    controller.start_stores(host)
    shell(_DATABASES)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [
            pool.submit(shell, _NOVA_TABLES, "nova"),
            pool.submit(shell, _MESSAGES),
            pool.submit(shell, "placement-manage db sync", "placement"),
            pool.submit(shell, "glance-manage db_sync; glance-manage db_load_metadefs", "glance"),
            pool.submit(shell, _NEUTRON_TABLES, "neutron"),
        ]
        shell(_IDENTITY)
        controller.start_identity(host)
        host.run("python3", "-", PASSWORD, given=_CATALOG)
        for job in jobs:
            job.result()
    shell(_STOP)
