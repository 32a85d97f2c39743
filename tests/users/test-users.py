#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs that use qemu-img run ours: libguestfs's tools, libvirt, virt-install.

A folder with a link qemu-img to blockgraph-img stands first in PATH, each program runs
under strace, and the trace has to show that ours was executed, and no other qemu-img.
What the programs made is then looked at from outside.

The programs are those in BLOCKGRAPH_TEST_USERS, where fetch-programs.sh puts them when
they are not there yet (.ci/run asks for that); else those that are installed.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, '..', 'tools'))
import harness  # pylint: disable=wrong-import-position

EXECUTED = re.compile(r'execve\("([^"]*)", \[(.*?)\](?:\.\.\.)?, 0x')
PROGRAMS = os.environ.get('BLOCKGRAPH_TEST_USERS')
URI = 'qemu:///system'


def script(name):
    return os.path.join(HERE, name)


def setUpModule():
    if PROGRAMS:
        subprocess.run(['bash', script('fetch-programs.sh'), PROGRAMS], check=True)
        appliance = os.path.join(PROGRAMS, 'appliance')
        if not os.path.exists(os.path.join(appliance, 'README.fixed')):
            subprocess.run([script('enter.sh'), PROGRAMS, sys.executable,
                            script('make-appliance.py'), PROGRAMS, appliance], check=True)


class UsersTest(harness.ToolTest):
    """Runs programs and says which commands of ours they ran."""

    def setUp(self):
        super().setUp()
        self.bin = os.path.join(self.scratch, 'bin')
        os.mkdir(self.bin)
        for name in ('img', 'io'):
            os.symlink(os.path.realpath(harness.ours('blockgraph-' + name)),
                       os.path.join(self.bin, 'qemu-' + name))

    def need(self, *programs):
        """Skip what needs programs that are neither fetched nor installed."""
        for name in () if PROGRAMS else programs + ('strace',):
            if shutil.which(name) is None:
                self.skipTest(name + ' is not installed')

    def run_user(self, *command, enter=bool(PROGRAMS), env=None, status=0):
        """Run a program; return (its result, [the arguments of each qemu-img])."""
        trace = self.path('trace')
        traced = ['strace', '-f', '-z', '-s', '4096', '--seccomp-bpf', '-e', 'trace=execve',
                  '-o', trace, *command]
        if enter:
            traced = [script('enter.sh'), PROGRAMS or self.empty_root(), *traced]
        env = {**os.environ, 'PATH': self.bin + ':' + os.environ['PATH'],
               'LC_ALL': 'C.UTF-8', 'LIBGUESTFS_BACKEND': 'direct',
               'LIBGUESTFS_BACKEND_SETTINGS': 'force_tcg', **(env or {})}
        if PROGRAMS:
            env['LIBGUESTFS_PATH'] = os.path.join(os.path.abspath(PROGRAMS), 'appliance')
        done = subprocess.run(traced, cwd=self.scratch, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=300, check=False)
        result = harness.Result(done.returncode, done.stdout, done.stderr)
        self.assertEqual(result.status, status, (command, result))
        return result, self.executed(trace)

    def executed(self, trace):
        """The arguments of each qemu-img in a trace, all of which have to be ours."""
        commands = []
        with open(trace, encoding='utf-8', errors='surrogateescape') as file:
            for path, arguments in EXECUTED.findall(file.read()):
                if os.path.basename(path) in ('qemu-img', 'qemu-io'):
                    self.assertEqual(os.path.dirname(path), self.bin, path)
                    commands.append(re.findall(r'"((?:[^"\\]|\\.)*)"', arguments)[1:])
        self.assertTrue(commands, 'no qemu-img was run')
        return commands

    def empty_root(self):
        """For enter.sh: no programs but the machine's."""
        for top in ('usr', 'etc'):
            os.makedirs(self.path('empty/files/' + top), exist_ok=True)
        return self.path('empty')

    def do(self, *args):
        """Run ours, which has to succeed; what it prints."""
        result = self.img(*args)
        self.assertEqual(result.status, 0, (args, result))
        return result.out

    def check_image(self, name):
        """Neither tool finds anything wrong with an image."""
        self.do('check', name)
        if harness.reference():
            result = self.qemu('check', name)
            self.assertEqual(result.status, 0, result)


class GuestfsTest(UsersTest):
    """libguestfs."""

    def test_virt_make_fs(self):
        """A file system in a new image, made in libguestfs's virtual machine."""
        self.need('virt-make-fs', 'debugfs')
        os.makedirs(self.path('tree/folder'))
        content = os.urandom(300000)
        self.write('tree/folder/file', content)
        _, commands = self.run_user('virt-make-fs', '--format=qcow2', '--type=ext4',
                                    '--size=+8M', 'tree', 'fs.qcow2')
        self.assertIn(['create', '-f', 'qcow2'], [command[:3] for command in commands])
        self.check_image('fs.qcow2')
        self.do('convert', '-O', 'raw', 'fs.qcow2', 'fs.raw')
        subprocess.run(['debugfs', '-R', 'dump /folder/file out', 'fs.raw'], cwd=self.scratch,
                       stderr=subprocess.DEVNULL, check=True)
        self.assertEqual(self.read('out'), content)

    def test_guestfish(self):
        """What libguestfs asks of qemu-img outside its virtual machine."""
        self.need('guestfish')
        self.write('script', '\n'.join((
            'disk-create base.qcow2 qcow2 20M compat:0.10 clustersize:32768',
            'disk-create top.qcow2 qcow2 -1 backingfile:base.qcow2 backingformat:qcow2',
            'disk-create metadata.qcow2 qcow2 5M preallocation:metadata',
            'disk-create plain.raw raw 3M preallocation:full',
            'disk-format base.qcow2', 'disk-format plain.raw',
            'disk-virtual-size top.qcow2', 'disk-virtual-size plain.raw',
            'disk-has-backing-file base.qcow2', 'disk-has-backing-file top.qcow2')).encode())
        result, commands = self.run_user('guestfish', '-f', 'script')
        self.assertEqual(result.out.split(), ['qcow2', 'raw', str(20 << 20), str(3 << 20),
                                              'false', 'true'])
        self.assertLessEqual({'create', 'info'}, {command[0] for command in commands})
        for name in ('base.qcow2', 'top.qcow2', 'metadata.qcow2'):
            self.check_image(name)
        self.assertIn('"cluster-size": 32768', self.do('info', '--output=json', 'base.qcow2'))


class LibvirtTest(UsersTest):
    """libvirt's storage driver, and virt-install on top of it."""

    @harness.on_disk  # below /dev virt-install makes no disks
    def test_libvirt(self):
        self.need('libvirtd', 'virsh', 'virt-install', 'unshare')
        if os.geteuid() != 0:
            self.skipTest('a libvirtd of its own takes root')
        os.mkdir(self.path('pool'))
        pool = self.path('pool')
        virsh = 'virsh -q -c %s ' % URI
        text = '\n'.join((
            'set -e',
            f'virt-install --connect {URI} --name guest --memory 64 --virt-type qemu'
            f' --disk path={pool}/disk.qcow2,size=0.125,format=qcow2 --import --noreboot'
            ' --osinfo detect=off,require=off --network none --graphics none --noautoconsole',
            virsh + "'vol-create-as pool thin.qcow2 30M --format qcow2"
            " --backing-vol disk.qcow2 --backing-vol-format qcow2;"
            ' vol-clone --pool pool disk.qcow2 copy.qcow2;'
            ' vol-resize --pool pool copy.qcow2 200M;'
            ' snapshot-create-as guest before; snapshot-create-as guest second;'
            " snapshot-revert guest before; snapshot-delete guest before'",
            virsh + f"vol-dumpxml {pool}/thin.qcow2"))
        self.write('script', text.encode())
        log = self.path('libvirtd.log')
        try:
            result, commands = self.run_user(
                script('with-libvirtd.sh'), 'sh', './script', enter=True,
                env={'LIBVIRT_LOG_OUTPUTS': '3:file:' + log})
        except AssertionError:
            if os.path.exists(log):
                print(self.read('libvirtd.log').decode(), file=sys.stderr)
            raise
        self.assertLessEqual({'create', 'convert', 'resize', 'snapshot'},
                             {command[0] for command in commands})
        self.assertIn('<path>%s/disk.qcow2</path>' % pool, result.out)
        for name, size in (('disk', 128 << 20), ('thin', 30 << 20), ('copy', 200 << 20)):
            self.check_image(f'pool/{name}.qcow2')
            info = json.loads(self.do('info', '--output=json', f'pool/{name}.qcow2'))
            self.assertEqual(info['virtual-size'], size)
        self.assertEqual([each['name'] for each in self.snapshots('pool/disk.qcow2')], ['second'])

    def snapshots(self, name):
        return json.loads(self.do('info', '--output=json', name)).get('snapshots', [])


if __name__ == '__main__':
    harness.main()
