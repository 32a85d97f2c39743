#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io: aio_read, aio_write, aio_flush and breakpoints, side by side with QEMU's."""
import harness
from io_testing import IoTest

RAW = ['-f', 'raw']
QCOW2 = ['-f', 'qcow2']
DEBUG = 'blkdebug::a.qcow2'


class Aio(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', bytes(range(256)) * 16, size=1 << 20)

    def test_one_after_the_other(self):
        words = []
        for command in ('aio_write 0 512', 'aio_write 0 0', 'aio_write -q 0 1k',
                        'aio_write -C 0 512', 'aio_write -f 0 512', 'aio_write -P 9 3 512 7',
                        'aio_write -z 0 512', 'aio_write -zu 0 4k', 'aio_write -z -P 3 9k 512',
                        'aio_write -i 0 512', 'aio_write 2M 512', 'aio_write -z 0 3G',
                        'aio_read 0 512', 'aio_read -v 0 16 20', 'aio_read -P 3 0 16 16',
                        'aio_read -P 3 -q 0 16', 'aio_read -i 0 16', 'aio_read -C 0 16',
                        'aio_read 2M 16'):
            words += [command, 'aio_flush']
        result = self.commands(RAW, 'a.raw', *words)
        self.assertEqual(result.status, 0)
        self.assert_equal_files('a.raw')

    def test_arguments_that_are_wrong(self):
        self.commands(RAW, 'a.raw', 'aio_write 0', 'aio_write x 3', 'aio_write 0 x',
                      'aio_write -P 300 0 1', 'aio_write -u 0 1', 'aio_write -z 0 1 1',
                      'aio_write -z 0 9E', 'aio_write -z 0 x', 'aio_write 0 3G',
                      'aio_write -n 0 1', 'aio_read', 'aio_read 0', 'aio_read x 0',
                      'aio_read -P xx 0 3', 'aio_read -z 0 3', 'aio_flush x')
        self.commands([*RAW, '-r'], 'a.raw', 'aio_write 0 512')

    def test_several_in_flight(self):
        self.commands(RAW, 'a.raw', *['aio_write -P %d %dk 1k' % (i, i) for i in range(1, 20)],
                      *['aio_read -P 0 %dk 4k 4k' % i for i in range(100, 120)], 'aio_flush',
                      'read -P 7 7k 1k', unordered=True)
        self.assert_equal_files('a.raw')

    def test_what_is_not_waited_for_ends_with_the_program(self):
        self.commands(RAW, 'a.raw', 'aio_read 0 512')
        self.commands(RAW, 'a.raw', 'aio_read 0 512', 'close', 'length')
        self.commands(RAW, 'a.raw', 'aio_write 0 512', 'reopen -r', 'length', unordered=True)
        self.commands(RAW, 'a.raw', 'aio_write 0 512', 'sleep 100', 'quit', 'length')

    def test_memory_may_be_registered(self):
        # QEMU's aborts here.
        result = self.mine(*RAW, '-c', 'aio_read -r 0 16', '-c', 'aio_write -r 0 16', 'a.raw')
        self.assertEqual((result.status, result.err), (0, ''))


class Break(IoTest):
    def setUp(self):
        super().setUp()
        self.image('a.qcow2')

    def test_held_and_resumed(self):
        self.commands(QCOW2, DEBUG, 'break write_aio A', 'aio_write -P 1 0 512', 'wait_break A',
                      'break write_aio B', 'aio_write -P 2 64k 512', 'wait_break B', 'resume B',
                      'resume A', 'aio_flush', 'read -P 1 0 512', 'read -P 2 64k 512',
                      unordered=True)
        self.assert_equal_disks('a.qcow2')

    def test_taken_back(self):
        self.commands(QCOW2, DEBUG, 'break write_aio A', 'remove_break A', 'aio_write 0 512',
                      'aio_flush')

    def test_errors(self):
        self.commands(QCOW2, DEBUG, 'break none_such A', 'break', 'break write_aio',
                      'break write_aio A b', 'resume', 'wait_break', 'remove_break',
                      'remove_break B', 'resume B')
        self.put('a.raw', size=1 << 20)
        self.commands(RAW, 'a.raw', 'remove_break A', 'resume A')

    def test_nothing_to_wait_for_is_an_error(self):
        # QEMU's waits for ever.
        for name in (DEBUG, 'a.qcow2'):
            result = self.mine(*QCOW2, '-c', 'wait_break A', name)
            self.assertEqual((result.status, result.out),
                             (1, 'Could not wait for breakpoint A: no request is in flight\n'))


if __name__ == '__main__':
    harness.main()
