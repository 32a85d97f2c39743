#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The library as others use it: as a Meson subproject, and installed.

The consumer is docs/examples/read-image.c, the program in README.md. It reads
an image with known content, raw and qcow2.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

TOP = os.path.abspath(os.path.join(os.path.dirname(__file__), '..', '..'))
EXAMPLE = os.path.join(TOP, 'docs', 'examples', 'read-image.c')
CONTENT = bytes(range(0xa0, 0xb0)) * 256
EXPECTED = f'{len(CONTENT)} bytes: ' + ' '.join(f'{b:02x}' for b in CONTENT[:16]) + '\n'
QEMU_IMG = os.environ.get('BLOCKGRAPH_TEST_QEMU_IMG', 'qemu-img')


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise AssertionError(f'{" ".join(command)}: exit code {done.returncode}\n'
                             f'{done.stdout[-4000:]}\n{done.stderr[-4000:]}')
    return done.stdout


# What is installed and linked is looked at, not how fast it is.
SOON_BUILT = '--buildtype=plain', '-Db_pch=true'


def copy_tree(target):
    """This tree without what is built in it and what only its tests need."""
    def ignored(folder, names):
        here = os.path.abspath(folder) == TOP
        return [n for n in names if n in ('.git', '__pycache__', 'fixtures')
                or here and n.startswith('build')
                or os.path.exists(os.path.join(folder, n, 'build.ninja'))]
    shutil.copytree(TOP, target, ignore=ignored)


class Package(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.mkdtemp(prefix='blockgraph-package-')
        cls.addClassCleanup(shutil.rmtree, cls.work)
        cls.prefix = os.path.join(cls.work, 'prefix')
        build = os.path.join(cls.work, 'build')
        run('meson', 'setup', build, TOP, '--prefix', cls.prefix, '--libdir', 'lib',
            *SOON_BUILT, '-Dtests=false')
        run('ninja', '-C', build, 'install')
        cls.libdir = os.path.join(cls.prefix, 'lib')
        cls.env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(cls.libdir, 'pkgconfig'))
        cls.raw = os.path.join(cls.work, 'image.raw')
        cls.qcow2 = os.path.join(cls.work, 'image.qcow2')
        with open(cls.raw, 'wb') as f:
            f.write(CONTENT)
        run(QEMU_IMG, 'convert', '-f', 'raw', '-O', 'qcow2', cls.raw, cls.qcow2)

    def pkg_config(self, *arguments):
        return run('pkg-config', *arguments, 'blockgraph', env=self.env).split()

    def compile(self, name, libs, *sources):
        program = os.path.join(self.work, name)
        run('cc', '-Wall', '-Werror', '-o', program, EXAMPLE, *sources,
            *self.pkg_config('--cflags'), *libs)
        return program

    def static_libs(self):
        return ['-l:libblockgraph.a' if lib == '-lblockgraph' else lib
                for lib in self.pkg_config('--static', '--libs')]

    @staticmethod
    def listed_symbols():
        with open(os.path.join(TOP, 'libblockgraph.map'), encoding='utf-8') as f:
            return set(re.findall(r'^    (\w+);$', f.read(), re.M))

    def check_consumer(self, program, **env):
        for image in self.raw, self.qcow2:
            with self.subTest(image=image):
                self.assertEqual(run(program, image, env=dict(os.environ, **env)), EXPECTED)

    def needed(self, path):
        return re.findall(r'\(NEEDED\).*\[(.*)\]', run('readelf', '-d', path))

    def build_with_subproject(self, kind):
        """One build folder for all kinds: what they have in common is compiled once."""
        consumer = os.path.join(self.work, 'consumer')
        build = os.path.join(consumer, 'build')
        if not os.path.exists(consumer):
            shutil.copytree(os.path.join(TOP, 'tests', 'package', 'consumer'), consumer)
            shutil.copy(EXAMPLE, consumer)
            copy_tree(os.path.join(consumer, 'subprojects', 'libblockgraph'))
            run('meson', 'setup', build, consumer, *SOON_BUILT)
        run('meson', 'configure', build, '-Ddefault_library=' + kind,
            '-Dlibblockgraph:default_library=' + kind)
        run('ninja', '-C', build, 'read-image')
        program = os.path.join(build, 'read-image')
        self.check_consumer(program)
        return program

    def test_consumer_builds_it_as_a_meson_subproject(self):
        program = self.build_with_subproject('shared')
        self.assertIn('libblockgraph.so.0', self.needed(program))

    def test_consumer_links_the_subproject_statically(self):
        program = self.build_with_subproject('static')
        self.assertNotIn('libblockgraph.so.0', self.needed(program))

    def test_consumer_links_the_installed_shared_library(self):
        program = self.compile('shared', self.pkg_config('--libs'))
        self.assertIn('libblockgraph.so.0', self.needed(program))
        self.check_consumer(program, LD_LIBRARY_PATH=self.libdir)

    def test_consumer_links_the_installed_static_library(self):
        program = self.compile('static', self.static_libs())
        self.assertNotIn('libblockgraph.so.0', self.needed(program))
        self.check_consumer(program)

    def test_program_may_use_the_names_that_the_static_library_has_inside(self):
        source = os.path.join(self.work, 'clash.c')
        with open(source, 'w', encoding='utf-8') as f:
            f.write('void fatal(void);\nvoid fatal(void) { __builtin_trap(); }\n'
                    'int claim_begin = 1;\nint block_driver_file = 1;\n')
        self.check_consumer(self.compile('clash', self.static_libs(), source))

    def test_static_library_shows_the_symbols_of_the_checked_in_list(self):
        archive = os.path.join(self.libdir, 'libblockgraph.a')
        table = run('nm', '--defined-only', '--extern-only', '--format=posix', archive)
        shown = [line.split()[0] for line in table.splitlines() if not line.endswith(':')]
        self.assertEqual(sorted(shown), sorted(self.listed_symbols()))

    def test_exported_symbols_are_those_of_the_checked_in_list(self):
        table = run('nm', '-D', '--defined-only', os.path.join(self.libdir, 'libblockgraph.so.0'))
        exported = {line.split()[-1] for line in table.splitlines() if ' A ' not in line}
        self.assertEqual({name.split('@')[0] for name in exported}, self.listed_symbols())
        self.assertEqual({name.partition('@@')[2] for name in exported}, {'LIBBLOCKGRAPH_0'})

    def test_each_installed_header_compiles_on_its_own(self):
        headers = os.path.join(self.prefix, 'include', 'blockgraph')
        names = sorted(os.listdir(headers))
        self.assertEqual(names, sorted(n for n in os.listdir(
            os.path.join(TOP, 'include', 'blockgraph')) if n.endswith('.h')))
        for name in names:
            with self.subTest(header=name):
                run('cc', '-Wall', '-Wextra', '-Werror', '-fsyntax-only',
                    *self.pkg_config('--cflags'), '-x', 'c', os.path.join(headers, name))


if __name__ == '__main__':
    sys.exit(unittest.main(verbosity=2))
