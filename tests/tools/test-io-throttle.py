#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""io and img: --object, and the throttle driver with its groups, side by side with QEMU's.

How long requests wait is in the unit tests test-throttle and test-throttle-group.
"""
import harness
from io_testing import IoTest

FAST = 'throttle-group,id=g,x-iops-total=100000,x-iops-size=4096'
NODE = 'driver=throttle,throttle-group=g,file.driver=file,file.filename=a.raw'
BAD_LIMITS = (
    'x-iops-total=10,x-iops-read=5', 'x-bps-total=10,x-bps-write=5', 'x-iops-total-max=10',
    'x-iops-total=10,x-iops-total-max=5', 'x-iops-total=10,x-iops-total-max-length=5',
    'x-iops-total=10,x-iops-total-max-length=0', 'x-iops-size=4096',
    'x-iops-total=1000000000000001', 'limits.bps-total=-1', 'limits.bps-total-max-length=0',
    'x-bps-total=1,x-bps-total-max=1000000000000000,x-bps-total-max-length=5000',
    'limits.iops-total=5,limits.iops-total-max=6,limits.iops-total-max-length=-1',
    'limits.bps-total-max-length=5000000000', 'limits.bps-total=10,x-bps-read=5',
    # Which of two faults is told.
    'x-bps-total=10,x-bps-read=5,x-iops-size=512', 'x-iops-size=512,x-bps-read=10000000000000000',
    'x-bps-total=10000000000000000,x-bps-total-max-length=0',
    'x-bps-total=10,x-bps-total-max=5,x-bps-total-max-length=0',
    'x-bps-total-max=10,x-bps-total-max-length=0',
    'x-bps-total-max=1000000000000000,x-bps-total-max-length=5000',
    'x-bps-total-max-length=5,x-iops-total-max=5', 'x-iops-total-max-length=5,x-bps-read-max=5',
    'x-bps-total=5,x-bps-read-max=6', 'x-bps-total=5,x-bps-total-max=10,x-bps-read-max=6',
    # No numbers, no limits.
    'x-iops-total=-1', 'x-iops-size=-1', 'x-iops-total=abc', 'x-iops-total=1k', 'x-iops-total=1.5',
    'x-iops-total=', 'x-iops-total=99999999999999999999', 'x-foo=1', 'limits.foo=1', 'limits=4',
    'limits.iops-total=1k',
)
GOOD_LIMITS = (
    'x-iops-total=100000', 'limits.iops-total=100000,x-iops-total=1', 'x-iops-write=1',
    'limits.iops-total=100000,x-iops-total=1000000000000000000', 'x-iops-total=0x10000',
    'x-bps-read=1000000,x-bps-read-max=2000000,x-bps-read-max-length=3,x-bps-write=1',
    'x-iops-total=1000000000000000', 'x-iops-total=5,limits.iops-size=-1', 'limits.iops-size=0',
)


class Throttle(IoTest):
    def setUp(self):
        super().setUp()
        self.put('a.raw', b'x', size=1 << 20)

    def img_same(self, *args):
        """The same of blockgraph-img and qemu-img."""
        self.need_reference_text()
        self.check_same(*args, cwd=self.path('mine'))

    def test_limits(self):
        for limits in GOOD_LIMITS + BAD_LIMITS:
            with self.subTest(limits=limits):
                done = self.same('--object', 'throttle-group,id=g,' + limits, '--image-opts',
                                 '-c', 'read 0 512', NODE)
                self.assertEqual(done.status, int(limits in BAD_LIMITS))

    def test_definitions(self):
        for definition in ('throttle-group', 'throttle-group,id=', 'throttle-group,id=1g',
                           'throttle-group,id=g.a-b_c', 'id=g', 'foo,id=g', 'foo',
                           'qom-type=throttle-group,id=g', 'help', 'throttle-group,help',
                           'throttle-group,id=g,?', 'secret,help', 'foo,help', 'secret,id=a',
                           '{"qom-type":"throttle-group","id":"g","limits":{"iops-total":10}}',
                           '{"qom-type":"throttle-group","id":"g","x-iops-total":10}',
                           '{"qom-type":"throttle-group","id":"g","limits":{"iops-total":true}}',
                           '{"qom-type":"throttle-group","id":"g","x":1}', '{"qom-type":"foo"}',
                           '{"qom-type":"throttle-group","id":5}'):
            with self.subTest(definition=definition):
                if 'help' in definition or '?' in definition:
                    self.need_io()
                    args = ('--object', definition, '-c', 'quit')
                    mine, theirs = self.mine(*args), self.theirs(*args)
                    self.assertEqual((mine.status, mine.err), (theirs.status, theirs.err))
                    # They have more types than we.
                    self.assertLessEqual(set(mine.out.splitlines()), set(theirs.out.splitlines()))
                    self.assertEqual(mine.out.splitlines()[0], theirs.out.splitlines()[0])
                else:
                    self.same('--object', definition, '-c', 'quit')
                    self.img_same('info', '--object', definition, 'a.raw')
        for one, other in (('throttle-group', 'throttle-group'), ('secret,data=x', FAST)):
            self.same('--object', one + ',id=g', '--object', other + ',id=g', '-c', 'quit')

    def test_options(self):
        for options in (NODE, NODE.replace('=g', '=h'), 'driver=throttle,file.filename=a.raw',
                        'driver=throttle,throttle-group=g', NODE + ',foo=1',
                        NODE + ',x-iops-total=1', NODE.replace('=g', '='),
                        NODE.replace('=g', '=h').replace('a.raw', 'none'),
                        'driver=throttle,throttle-group=g,file.filename=a.raw',
                        'driver=throttle,throttle-group=g,file=a.raw'):
            with self.subTest(options=options):
                self.same('--object', FAST, '--image-opts', '-c', 'read 0 512', options)
        self.same('-c', 'read 0 512', 'throttle:a.raw')
        self.image('a.qcow2') # the file, not what is in it
        self.same('--object', FAST, '-c', 'open -o driver=throttle,throttle-group=g a.qcow2',
                  '-c', 'length', '-c', 'info')
        self.same('--image-opts', '-c', 'read 0 512', NODE)
        self.same('--object', 'secret,id=g,data=x', '--image-opts', '-c', 'read 0 512', NODE)
        self.img_same('info', '-f', 'throttle', 'a.raw')
        self.img_same('create', '-f', 'throttle', 'b', '1M')
        self.img_same('info', '--image-opts', NODE)

    def test_requests(self):
        self.commands(('--object', FAST, '--object', 'throttle-group,id=h', '--image-opts'), NODE,
                      'write -P 1 0 64k', 'read -P 1 100 8k', 'write -z 128k 64k',
                      'write -z -u 256k 64k', 'discard 512k 64k', 'flush', 'length', 'info', 'map',
                      'alloc 0 1M', 'truncate 2M', 'length', 'writev -P 5 1M 4k 512',
                      'aio_write -P 6 1536k 4k', 'aio_flush', 'read -P 6 1536k 4k',
                      'reopen -o throttle-group=none', 'reopen -o throttle-group=h',
                      'read -P 1 0 512', 'reopen -r', 'write 0 512')
        self.assert_equal_files('a.raw')

    def test_formats_above_and_below(self):
        above = 'driver=qcow2,file.driver=throttle,file.throttle-group=g,file.file.filename=a.qcow2'
        below = 'driver=throttle,throttle-group=g,file.driver=qcow2,file.file.filename=a.qcow2'
        for options in (above, below):
            self.image('a.qcow2')
            self.commands(('--object', FAST, '--image-opts'), options, 'write -P 1 4k 64k',
                          'write -c -P 2 256k 64k', 'read -P 2 256k 64k', 'discard 4k 60k', 'info',
                          'map')
            self.assert_equal_disks('a.qcow2')
        self.img_same('check', '--object', FAST, '--image-opts', above)
        self.img_same('check', '--object', FAST, '--image-opts', below)
        self.img_same('map', '--output=json', '--object', FAST, '--image-opts', below)
        self.img_same('measure', '-O', 'qcow2', '--object', FAST, '--image-opts', below)
        self.img_same('snapshot', '-l', '--object', FAST, '--image-opts', below)
        for folder, program in (('mine', self.img), ('theirs', self.qemu)):
            done = program('convert', '-O', 'raw', '--object', FAST, '--image-opts', below, 'b.raw',
                           cwd=self.path(folder))
            self.assertEqual(done.status, 0, done)
        self.assert_equal_files('b.raw')


if __name__ == '__main__':
    harness.main()
