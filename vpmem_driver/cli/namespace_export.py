"""The command ``vpmem namespace export``."""

import argparse
import os
import pathlib

from vpmem_driver import exception, model
from vpmem_driver.cli import archives, common


class NamespaceExport(common.Command):
    """Write the content of a claimed namespace to a file. The claim does not change.

    The guest must be off, and the libvirt hook does not start it during the export. There is no way to export the
    memory of a running guest: while it writes, the file would have the bytes of different moments.

    The format 'stream' has a digest of each MiB and of the whole, and leaves zeros out. An interrupted export of this
    format resumes: it leaves FILE.part, and the next one uses what has not changed. A raw image (with holes) or a qcow2
    image has no digests; it is compared with what was read before it gets its name.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.epilog = "example: vpmem namespace export ns0 - | zstd > ns0.vpmem.zst"
        parser.add_argument("namespace", metavar="NAME|UUID", help="namespace that an owner holds")
        parser.add_argument("file", metavar="FILE", help="new file (-: standard output, only for 'stream')")
        parser.add_argument("--file-format", choices=archives.FORMATS, default="stream", help="format (%(default)s)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        pool = common.app(self).pool()
        record = pool.record(parsed_args.namespace)
        if record.owner is None or record.state != model.State.CLAIMED:
            raise exception.InvalidRequest(
                what="namespace",
                value=parsed_args.namespace,
                reason=f"it is {record.state}, and only the content of an owner can be exported",
                remedy="'vpmem namespace list' shows the owners",
            )
        (grant,) = [grant for grant in pool.grants(record.owner) if grant.uuid == record.uuid]
        path = pathlib.Path(parsed_args.file)
        to_stdout = parsed_args.file == "-"
        self._check_file(path, parsed_args.file_format, to_stdout=to_stdout)
        with (
            archives.file_errors(parsed_args.file),
            pool.copies.hold_still(grant.owner, [grant.uuid]) as departure,
            common.wipe_progress(self) as on_progress,
        ):
            if to_stdout:
                archives.export_pipe(pool, departure, grant, 1, on_progress)
            elif parsed_args.file_format == "stream":
                archives.export_stream(pool, departure, grant, archives.draft(path), on_progress)
            else:
                archives.export_image(pool, departure, grant, path, parsed_args.file_format, on_progress)
        if parsed_args.file_format == "stream" and not to_stdout:
            with archives.file_errors(parsed_args.file):
                archives.publish(path)

    def _check_file(self, path: pathlib.Path, file_format: str, *, to_stdout: bool) -> None:
        reason = None
        if to_stdout:
            if file_format != "stream":
                reason = f"the format {file_format} needs a file"
            elif os.isatty(1):
                reason = "standard output is a terminal"
        elif os.path.lexists(path):
            reason = "it exists"
        if reason is not None:
            raise exception.InvalidRequest(what="file", value=path, reason=reason, remedy="Name a new file")
