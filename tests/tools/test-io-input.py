#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: lines from standard input and from a terminal, and the commands about the program."""
import os
import pty
import select
import signal
import time

import harness
from io_testing import IoTest

RAW = ['-f', 'raw']
PATIENCE = 60


class Input(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', size=1 << 20)

    def test_standard_input(self):
        for text in ('', 'length\n', 'length', 'length\nread 0 512\n\nread 2M 1\nnone\n',
                     'length\nquit\nlength\n', 'read 2M 1\nq\n', 'read -P 1 0 1\n  length  \n',
                     'aio_write 0 512\naio_flush\n', '\tlength\nlength\r\n'):
            with self.subTest(text=text):
                self.same(*RAW, 'a.raw', stdin=text.encode())
        self.same(stdin=b'length\nopen -o driver=raw a.raw\nl\nclose\nl')
        self.same(*RAW, '-c', 'read 0 1', 'a.raw', stdin=b'length\n')
        self.same('none', stdin=b'length\n')

    def test_lines_may_be_long(self):
        # QEMU's cuts them at 1024 bytes.
        result = self.mine(*RAW, 'a.raw', stdin=b' ' * 10000 + b'length\nl')
        self.assertEqual((result.status, result.out),
                         (0, 'qemu-io> 1 MiB\nqemu-io> 1 MiB\nqemu-io> '))

    def test_what_is_no_command(self):
        self.commands(RAW, 'a.raw', '', '   ', '  length ', '\tlength', 'none', 'length; length',
                      '#length', 'rv 0 1', 'm', 'l', 'l 3')

    def test_commands_about_the_program(self):
        self.commands(RAW, 'a.raw', 'sleep 10', 'sleep x', 'sleep', 'sleep -1', 'sleep 0x1',
                      'sigraise', 'sigraise x', 'sigraise 0', 'sigraise 64k', 'help none',
                      'help read write', 'abort 3')
        self.commands(RAW, 'a.raw', 'read 2M 1', 'quit 3', 'length')
        self.commands(RAW, 'a.raw', 'quit', 'length')
        self.same('-c', 'sigraise 0', '-c', 'sleep 1')
        for number in (signal.SIGTERM, signal.SIGKILL):
            result = self.commands(RAW, 'a.raw', 'length', 'sigraise %d' % number, 'length')
            self.assertEqual(result.status, -number)

    def test_abort(self):
        self.assertEqual(self.mine('-c', 'abort').status, -signal.SIGABRT)

    def test_help_names_the_commands_and_what_they_take(self):
        self.need_io()
        mine, theirs = ([line.split(' -- ')[0].strip() for line in run('-c', 'help').out.split('\n')
                         if not line.startswith(('zone', 'sleep'))]
                        for run in (self.mine, self.theirs))
        self.assertEqual(mine, theirs)
        for name in ('read', 'r', '?', 'aio_write', 'map'):
            mine, theirs = (run('-c', 'help ' + name) for run in (self.mine, self.theirs))
            self.assertEqual(mine.status, theirs.status)
            self.assertEqual(mine.out.split(' -- ')[0].split(), theirs.out.split(' -- ')[0].split())

    def test_requests_complete_while_a_line_is_waited_for(self):
        read_end, write_end = os.pipe()
        out_end, out_write = os.pipe()
        pid = os.posix_spawn(self.as_qemu_io, ['qemu-io', *RAW, self.path('mine/a.raw')],
                             os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, read_end, 0),
                                                       (os.POSIX_SPAWN_DUP2, out_write, 1),
                                                       (os.POSIX_SPAWN_CLOSE, write_end)])
        os.close(read_end)
        os.close(out_write)
        os.write(write_end, b'aio_read 0 512\n')
        self.await_text(out_end, b'read 512/512 bytes at offset 0\n')
        os.close(write_end)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(out_end)

    def await_text(self, descriptor, wanted):
        """Read until it has come; all that was read."""
        text = b''
        end = time.monotonic() + PATIENCE
        while wanted not in text:
            ready, _, _ = select.select([descriptor], [], [], max(end - time.monotonic(), 0))
            self.assertTrue(ready, text)
            more = os.read(descriptor, 4096)
            self.assertTrue(more, text)
            text += more
        return text

    def test_a_terminal(self):
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update(TERM='xterm', HOME=self.scratch)
            os.execv(self.as_qemu_io, ['qemu-io', *RAW, self.path('mine/a.raw')])
        self.await_text(terminal, b'qemu-io> ')
        os.write(terminal, b'truncate 3M\n')
        self.await_text(terminal, b'3M\r\nqemu-io> ')
        os.write(terminal, b'lengtx\x7fh\n')
        self.await_text(terminal, b'3 MiB\r\nqemu-io> ')
        os.write(terminal, b'aio_read 0 512\n')
        self.await_text(terminal, b'ops/sec)')
        os.write(terminal, b'quit\n')
        self.drain(terminal)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)
        os.close(terminal)

    @staticmethod
    def drain(terminal):
        """Take what comes until the other end is closed."""
        try:
            while os.read(terminal, 4096):
                pass
        except OSError:
            pass


if __name__ == '__main__':
    harness.main()
