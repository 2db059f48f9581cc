"""Lets Nova's tests find etc/nova: they look beside the package, and the wheel puts it below the prefix."""

import pathlib
import sys
import sysconfig

link = pathlib.Path(sysconfig.get_path("purelib"), "etc", "nova")
link.parent.mkdir(exist_ok=True)
link.unlink(missing_ok=True)
link.symlink_to(pathlib.Path(sys.prefix, "etc", "nova"))
