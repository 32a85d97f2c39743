#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every check finds fault with its bad sample, and with nothing in the good one."""
import os
import sys
import unittest

import checks_code
import csource
import tidy  # noqa: F401 (registers all checks)
from registry import checks
from tree import Tree

HEAD = '/* SPDX-License-Identifier: LGPL-2.1-or-later */\n'
EXAMPLE = HEAD + 'int main(void)\n{\n    return 0;\n}\n'
GOOD = {
    'README.md': '# Name\n```c\n' + EXAMPLE + '```\nSee [docs](docs/raw.md).\n',
    'docs/raw.md': '# raw\n',
    'docs/examples/read-image.c': EXAMPLE,
    'include/blockgraph/iov.h': HEAD + '/* Does a. */\nint a(void);\n',
    'include/blockgraph/block.h': HEAD + '#include "blockgraph/iov.h"\n',
    'include/blockgraph/block-driver.h': HEAD + '#include "blockgraph/block.h"\n',
    'libblockgraph.map': 'V {\nglobal:\n    a;\nlocal:\n    *;\n};\n',
    'util/a.c': HEAD + '#include "util/a.h"\n#include "blockgraph/iov.h"\n',
    'block/a.c': HEAD + '#include "block/a.h"\n#include "util/a.h"\n',
    'drivers/meson.build': "driver_files = {\n  'raw': files('raw.c'),\n}\n",
    'drivers/raw.c': HEAD + '#include "blockgraph/block.h"\nBlockDriver block_driver_raw = {\n};\n',
    'tools/a.c': HEAD + '#include "block/a.h"\n',
}


class Checks(unittest.TestCase):
    def test_each_check_finds_the_faults_of_its_bad_sample(self):
        for check in checks:
            with self.subTest(check=check.name):
                bad, faults = check.bad
                found = list(check.run(Tree(bad)))
                self.assertEqual(len(found), faults, found)

    def test_the_good_sample_passes_every_check(self):
        for check in checks:
            with self.subTest(check=check.name):
                self.assertEqual(list(check.run(Tree(GOOD))), [])

    def test_the_written_map_passes(self):
        tree = Tree({'include/blockgraph/a.h': '/* . */\nint a(void);\nextern T *const b;\n'})
        tree.texts[checks_code.MAP] = checks_code.map_text(tree)
        self.assertEqual(list(checks_code.symbols(tree)), [])


class Source(unittest.TestCase):
    def names(self, text):
        return [f.name for f in csource.functions(text)]

    def test_functions_are_found_among_initialisers_structs_and_conditionals(self):
        text = ('struct A {\n    int (*call)(int);\n};\n'
                'static T table[] = {\n    { call(1), "}" },\n};\n'
                '#if X\nint f(int a)\n{\n#else\nint f(void)\n{\n#endif\n    return 0; /* } */\n}\n'
                'typedef struct ATTR("x") B {\n    int b;\n} B;\n'
                "G_DEFINE(A, b)\nstatic T *g(void (*cb)(int),\n    int b)\n{\n"
                "    if ('{') {\n    }\n}\n")
        self.assertEqual(self.names(text), ['f', 'g'])

    def test_a_function_is_as_long_as_from_its_name_to_its_brace(self):
        self.assertEqual(csource.functions('int a;\n\nint f(int a,\n      int b)\n{\n}\n'),
                         [csource.Function('f', 3, 4)])

    def test_declarations_are_the_names_that_a_header_exports(self):
        text = ('typedef void *T(int a);\nstatic inline int f(void)\n{\n    return g();\n}\n'
                'G_BEGIN_DECLS\nT a(T (*cb)(int)) ATTR(x);\nG_DEFINE_AUTOPTR_CLEANUP_FUNC(T, a)\n'
                'extern const T b[];\nstruct S {\n    int (*c)(void);\n};\n'
                'struct S *d(void);\n#define e() f()\n')
        self.assertEqual([(d.name, d.kind) for d in csource.declarations(text)],
                         [('a', 'function'), ('b', 'variable'), ('d', 'function')])


if __name__ == '__main__':
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    unittest.main()
