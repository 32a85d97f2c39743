#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every option of img that tests/features/tools.txt names changes what its run comes to."""
import harness
from option_runs import OptionTest


class ImgOptions(OptionTest):

    def test_every_option_makes_a_difference(self):
        self.check_program('img')


if __name__ == '__main__':
    harness.main()
