// SPDX-License-Identifier: GPL-2.0
/* A test fixture of the Ansible collection xpu.fleet in the place of @PACKAGE@: it drives nothing. */
#include <linux/module.h>

static int __init fixture_init(void)
{
	pr_info("@MODULE@: xpu.fleet test fixture, version @VERSION@\n");
	return 0;
}

static void __exit fixture_exit(void)
{
}

module_init(fixture_init);
module_exit(fixture_exit);
MODULE_DESCRIPTION("xpu.fleet test fixture in the place of @PACKAGE@");
MODULE_LICENSE("GPL");
MODULE_VERSION("@VERSION@");
