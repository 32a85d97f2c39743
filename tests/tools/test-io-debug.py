#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: the debug drivers blkdebug, blkverify and blklogwrites, side by side with QEMU's."""
import os

import harness
from io_testing import IoTest

LOGGED = ('driver=blklogwrites,file.driver=file,file.filename=a.raw,log.driver=file,'
          'log.filename=log')
VERIFIED = ('driver=blkverify,raw.driver=file,raw.filename=a.raw,test.driver=file,'
            'test.filename=b.raw')
# Events that QEMU's raise for these commands, too, and those that neither raises.
EVENTS = {
    'read 512k 512': ('read_aio', 'l2_load', 'write_aio', 'pwritev', 'flush_to_os'),
    'write 512k 512': ('write_aio', 'pwritev', 'pwritev_done', 'read_aio', 'cluster_alloc',
                       'pwritev_rmw_head'),
    'write 512 512': ('write_aio', 'cluster_alloc', 'cow_read', 'l1_grow_write_table'),
    'write -c 64k 64k': ('write_compressed', 'cluster_alloc_bytes', 'write_aio', 'reftable_grow'),
}


class Debug(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', b'x', size=1 << 20)
        self.put('b.raw', b'x', size=1 << 20)

    def files_are_equal(self, name, what):
        self.assertEqual(self.read(os.path.join('mine', name)),
                         self.read(os.path.join('theirs', name)), what)

    def test_logs_are_equal(self):
        # One change each: when a log is flushed between commands is the program's affair.
        for command in ('write -P 1 0 4k', 'write -z 8k 8k', 'discard 16k 16k', 'length',
                        'write -P 3 513 100', 'writev -P 5 4k 512 1k', 'write -z -u 64k 64k',
                        'truncate 2M'):
            self.put('log')
            self.same('--image-opts', '-c', command, LOGGED)
            self.files_are_equal('log', command)
        self.same('--image-opts', '-c', 'write 0 512', LOGGED + ',log-append=on')
        self.files_are_equal('log', 'append')
        self.same('--image-opts', '-c', 'write 4k 512', LOGGED + ',log-sector-size=4k')
        self.files_are_equal('log', 'sectors of 4k')

    def test_blkverify(self):
        self.same('--image-opts', '-c', 'write -P 3 100 8k', '-c', 'read -P 3 100 8k',
                  '-c', 'discard 0 4k', '-c', 'length', VERIFIED)
        for name in ('a.raw', 'b.raw'):
            self.files_are_equal(name, name)
        self.put('b.raw', b'y', size=1 << 20)
        self.need_io()
        args = ('--image-opts', '-c', 'read 0 8k', VERIFIED)
        mine, theirs = self.mine(*args), self.theirs(*args)
        self.assertEqual((mine.status, theirs.status), (1, 1))
        self.assertTrue(mine.err.startswith(theirs.err) and theirs.err, (mine, theirs))

    def test_what_is_lost_at_the_end_is_told(self):
        """A write whose tables cannot be brought to the image, which nobody flushed."""
        self.image('a.qcow2')
        failing = ('driver=qcow2,file.driver=blkdebug,file.inject-error.0.event=none,'
                   'file.inject-error.0.iotype=flush,file.image.driver=file,'
                   'file.image.filename=a.qcow2')
        for commands in (['write -q 0 64k'], ['write -q 0 64k', 'close']):
            result = self.mine('--image-opts', *(word for c in commands for word in ('-c', c)),
                               failing)
            self.assertEqual((result.status, result.out), (1, ''), result)
            self.assertRegex(result.err, "Could not flush '.*a.qcow2.*': Input/output error")
        result = self.mine('--image-opts', '-r', '-c', 'read -q 0 64k', failing)
        self.assertEqual((result.status, result.err), (0, ''), result)

    def test_events(self):
        """An event changes the state, in which a read fails."""
        self.image('a.qcow2')
        self.same('-f', 'qcow2', '-c', 'write 512k 64k', '-c', 'flush', 'a.qcow2')
        with open(self.path('mine/a.qcow2'), 'rb') as file:
            image = file.read()
        for command, events in EVENTS.items():
            for event in events:
                self.put('a.qcow2', image)
                self.same('--image-opts', '-c', command, '-c', 'read 540k 512',
                          'driver=qcow2,file.driver=blkdebug,file.image.driver=file,'
                          'file.image.filename=a.qcow2,file.set-state.0.event=%s,'
                          'file.set-state.0.state=1,file.set-state.0.new_state=2,'
                          'file.inject-error.0.event=read_aio,file.inject-error.0.state=2,'
                          'file.inject-error.0.iotype=read,file.inject-error.0.errno=28' % event)


if __name__ == '__main__':
    harness.main()
