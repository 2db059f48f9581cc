"""The controller: databases, message queue, and all of OpenStack but nova-compute."""

from tests.cluster import settings
from tests.cluster.host import Host
from tests.cluster.settings import CONTROLLER, PASSWORD, database, ini

_KEYSTONE = {"DEFAULT": {"use_stderr": "true"}, "database": database("keystone"), "token": {"provider": "fernet"}}

_GLANCE = {
    **settings.TOKENS,
    "DEFAULT": {"enabled_backends": "files:file", "workers": 0, "bind_host": "0.0.0.0"},  # noqa: S104
    "database": database("glance"),
    "paste_deploy": {"flavor": "keystone"},
    "glance_store": {"default_backend": "files"},
    "files": {"filesystem_store_datadir": "/var/lib/glance/images"},
}

_PLACEMENT = {**settings.TOKENS, "placement_database": database("placement"), "api": {"auth_strategy": "keystone"}}

_NEUTRON = {
    **settings.TOKENS,
    **settings.MESSAGES,
    "database": database("neutron"),
    "oslo_concurrency": {"lock_path": "/run/lock/neutron"},
    "nova": settings.CREDENTIALS,
}
_NEUTRON["DEFAULT"] = {
    **settings.QUEUE,
    "core_plugin": "ml2",
    "service_plugins": "router",  # Neutron 26 cannot list ports without it
    "api_workers": 1,
    "rpc_workers": 0,
    "rpc_state_report_workers": 0,
    "notify_nova_on_port_status_changes": "false",
    "notify_nova_on_port_data_changes": "false",
}
_ML2 = {"ml2": {"type_drivers": "local", "tenant_network_types": "local", "mechanism_drivers": ""}}

_NOVA = {
    "database": database("nova"),
    "api_database": database("nova_api"),
    "conductor": {"workers": 1},
    "scheduler": {"workers": 1},
    "filter_scheduler": {"track_instance_changes": "false"},
}

#: The credentials of the client. From 2.95 on, an evacuated server is stopped.
OPENRC = f"""\
export OS_AUTH_URL=http://{CONTROLLER}:5000/v3 OS_IDENTITY_API_VERSION=3 OS_REGION_NAME=RegionOne
export OS_USERNAME=admin OS_PASSWORD={PASSWORD} OS_PROJECT_NAME=admin
export OS_USER_DOMAIN_NAME=Default OS_PROJECT_DOMAIN_NAME=Default
export OS_COMPUTE_API_VERSION=2.94
"""

_DATABASES = r"""
install -d -o mysql /run/mysqld
setsid mariadbd --user=mysql --bind-address=0.0.0.0 --skip-name-resolve --innodb-buffer-pool-size=64M \
    --performance-schema=OFF --max-connections=400 >> /var/log/cluster/mariadb 2>&1 < /dev/null &
until mariadb-admin --silent ping > /dev/null 2>&1; do sleep 0.2; done
"""

_MESSAGES = r"""
export RABBITMQ_NODENAME=rabbit@localhost HOME=/var/lib/rabbitmq
rabbitmq-server -detached >> /var/log/cluster/rabbitmq 2>&1
"""


def _serve(host: Host, name: str, port: int, program: str, *more: object, processes: int = 1, threads: int = 2) -> None:
    # Without that header clients see connections reset.
    words = ["uwsgi", "--plugins", "python3", "--http-socket", f"0.0.0.0:{port}", "--add-header", "Connection: close"]
    words += ["--wsgi-file", f"/usr/bin/{program}", "--processes", processes, "--threads", threads, "--master"]
    words += ["--enable-threads", "--buffer-size", 65535, "--die-on-term", "--lazy-apps", "--disable-logging"]
    host.start(name, *words, *more, user=name.partition("-")[0])


def _configure(host: Host) -> None:
    for path, text in {
        "keystone/keystone.conf": ini(_KEYSTONE),
        "glance/glance-api.conf": ini(_GLANCE),
        "placement/placement.conf": ini(_PLACEMENT),
        "neutron/neutron.conf": ini(_NEUTRON),
        "neutron/plugins/ml2/ml2_conf.ini": ini(_ML2),
        "nova/nova.conf": ini(settings.NOVA, _NOVA),
    }.items():
        host.write(f"/etc/{path}", text, owner=f"root:{path.partition('/')[0]}", mode=0o640)
    host.write("/root/openrc", OPENRC, mode=0o600)


def start_stores(host: Host) -> None:
    """Write the configuration of all services, and start what they keep their state in."""
    host.run("mkdir", "-p", "/var/log/cluster")
    _configure(host)
    host.run("sh", "-ec", _MESSAGES)
    host.run("sh", "-ec", _DATABASES)
    host.wait_for_port(5672)


def start_identity(host: Host) -> None:
    """Start the service that all others ask; returns when it listens."""
    _serve(host, "keystone", 5000, "keystone-wsgi-public", threads=4)
    host.wait_for_port(5000)


def start(host: Host) -> None:
    """Start everything on a host that is on, and has what :mod:`.databases` makes. Returns when the services listen."""
    start_stores(host)
    start_identity(host)
    _serve(host, "placement", 8778, "placement-api")
    # From the environment with this package, which has extra specs of its own. It runs eventlet: with threads of uWSGI,
    # answers from the message queue reach none of them.
    environment = ("--virtualenv", "/opt/vpmem")
    _serve(host, "nova-api", 8774, "nova-api-wsgi", *environment, processes=2, threads=1)
    host.start("glance", "glance-api", user="glance")
    for service in ("nova-conductor", "nova-scheduler"):
        host.start(service, service, user="nova")
    ml2 = ("--config-file", "/etc/neutron/neutron.conf", "--config-file", "/etc/neutron/plugins/ml2/ml2_conf.ini")
    host.start("neutron", "neutron-server", *ml2, user="neutron")
    for port in (8778, 8774, 9292, 9696):
        host.wait_for_port(port)


def discover(host: Host) -> None:
    """Map the compute hosts that have started to their cell."""
    host.run("nova-manage", "cell_v2", "discover_hosts", user="nova")
