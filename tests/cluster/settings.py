"""What the hosts of the cluster have in common: their names, and the configuration of OpenStack's services."""

import configparser
import io
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONTROLLER, COMPUTES = "controller", ("compute1", "compute2")

#: Their addresses, in a network of their own.
NETWORK = "10.99.0"
HOSTS = {CONTROLLER: f"{NETWORK}.1", "compute1": f"{NETWORK}.11", "compute2": f"{NETWORK}.12"}

#: The same on all hosts.
ETC_HOSTS = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in HOSTS.items())

#: Of every user, in a network that nobody else is in.
PASSWORD = "cluster"  # noqa: S105

Ini = dict[str, dict[str, object]]


def ini(*parts: Ini) -> str:
    """The text of a configuration file: all sections of all parts."""
    parser = configparser.RawConfigParser(default_section="")
    for part in parts:
        for section, options in part.items():
            if not parser.has_section(section):
                parser.add_section(section)
            for name, value in options.items():
                parser.set(section, name, str(value))
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()


def database(name: str) -> dict[str, object]:
    """The options of a service's connection to its database."""
    return {"connection": f"mysql+pymysql://openstack:{PASSWORD}@{CONTROLLER}/{name}", "max_pool_size": 2}


#: All services are one user.
CREDENTIALS = {
    "auth_type": "password",
    "auth_url": f"http://{CONTROLLER}:5000/v3",
    "username": "openstack",
    "password": PASSWORD,
    "project_name": "service",
    "project_domain_name": "Default",
    "user_domain_name": "Default",
    "region_name": "RegionOne",
}

TOKENS: Ini = {
    "keystone_authtoken": {
        **CREDENTIALS,
        "www_authenticate_uri": f"http://{CONTROLLER}:5000",
        "service_token_roles": "service",
        "service_token_roles_required": "true",
    }
}

QUEUE = {"transport_url": f"rabbit://openstack:{PASSWORD}@{CONTROLLER}:5672/", "debug": "false"}

#: No gigabytes of notifications, and messages that are lost with the host.
MESSAGES: Ini = {"DEFAULT": QUEUE, "oslo_messaging_notifications": {"driver": "noop"}}

NOVA: Ini = {
    **TOKENS,
    "DEFAULT": {
        **QUEUE,
        "state_path": "/var/lib/nova",
        "report_interval": 5,
        "service_down_time": 30,
        "rpc_response_timeout": 120,  # on a machine with much other work
        "allow_resize_to_same_host": "true",
    },
    "oslo_messaging_notifications": {"driver": "noop"},
    "oslo_concurrency": {"lock_path": "/run/lock/nova"},
    "api": {"auth_strategy": "keystone"},
    "neutron": CREDENTIALS,
    "placement": CREDENTIALS,
    "service_user": {**CREDENTIALS, "send_service_user_token": "true"},
}
