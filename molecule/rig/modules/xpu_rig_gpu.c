// SPDX-License-Identifier: GPL-2.0
/*
 * A test fixture of the Ansible collection xpu.fleet: a PCI bus in a domain of its own, in software, with one function
 * that says it is an Intel Arc A770. Nothing is behind its registers; no real machine has a use for this module.
 */
#include <linux/ioport.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/sizes.h>
#include <asm/pci.h>
#include <asm/unaligned.h>

#define RIG_DOMAIN 1
#define RIG_BUS 3
#define RIG_WINDOW_START 0x4000000000ULL
#define RIG_LOCAL_MEMORY (16ULL * SZ_1G)

static u8 config[PCI_CFG_SPACE_SIZE];
/* A bit that is set can be written. */
static u8 writable[PCI_CFG_SPACE_SIZE];
static DEFINE_RAW_SPINLOCK(config_lock);

static struct pci_sysdata sysdata = { .domain = RIG_DOMAIN, .node = NUMA_NO_NODE };
static struct pci_bus *bus;
static struct resource window = { .name = "xpu.fleet fixture GPU", .flags = IORESOURCE_MEM | IORESOURCE_MEM_64 };
static struct resource numbers = {
	.name = "xpu.fleet fixture bus", .start = RIG_BUS, .end = RIG_BUS, .flags = IORESOURCE_BUS,
};

static void set32(u8 *space, int where, u32 value)
{
	put_unaligned_le32(value, space + where);
}

/* A 64-bit memory register of ``size`` bytes, a power of two. */
static void memory_register(int where, u64 size, u32 flags)
{
	u64 mask = ~(size - 1);

	set32(config, where, flags | PCI_BASE_ADDRESS_MEM_TYPE_64);
	set32(writable, where, lower_32_bits(mask));
	set32(writable, where + 4, upper_32_bits(mask));
}

static void fill_config(void)
{
	set32(config, PCI_VENDOR_ID, 0x56a0 << 16 | PCI_VENDOR_ID_INTEL);
	set32(config, PCI_CLASS_REVISION, PCI_CLASS_DISPLAY_VGA << 16 | 0x08);
	set32(config, PCI_SUBSYSTEM_VENDOR_ID, 0x1020 << 16 | PCI_VENDOR_ID_INTEL);
	set32(writable, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	set32(writable, PCI_CACHE_LINE_SIZE, 0xffff);
	set32(writable, PCI_INTERRUPT_LINE, 0xff);
	memory_register(PCI_BASE_ADDRESS_0, SZ_16M, 0);
	memory_register(PCI_BASE_ADDRESS_2, RIG_LOCAL_MEMORY, PCI_BASE_ADDRESS_MEM_PREFETCH);
}

static bool present(struct pci_bus *on, unsigned int devfn, int where, int size)
{
	return on->number == RIG_BUS && devfn == 0 && where >= 0 && where + size <= PCI_CFG_SPACE_SIZE;
}

static int rig_read(struct pci_bus *on, unsigned int devfn, int where, int size, u32 *value)
{
	unsigned long flags;
	int i;

	if (!present(on, devfn, where, size)) {
		*value = ~0;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	*value = 0;
	raw_spin_lock_irqsave(&config_lock, flags);
	for (i = 0; i < size; i++)
		*value |= (u32)config[where + i] << (8 * i);
	raw_spin_unlock_irqrestore(&config_lock, flags);
	return PCIBIOS_SUCCESSFUL;
}

static int rig_write(struct pci_bus *on, unsigned int devfn, int where, int size, u32 value)
{
	unsigned long flags;
	int i;

	if (!present(on, devfn, where, size))
		return PCIBIOS_DEVICE_NOT_FOUND;
	raw_spin_lock_irqsave(&config_lock, flags);
	for (i = 0; i < size; i++) {
		u8 mask = writable[where + i];

		config[where + i] = (config[where + i] & ~mask) | (value >> (8 * i) & mask);
	}
	raw_spin_unlock_irqrestore(&config_lock, flags);
	return PCIBIOS_SUCCESSFUL;
}

static struct pci_ops ops = { .read = rig_read, .write = rig_write };

static int __init rig_init(void)
{
	LIST_HEAD(resources);
	int error;

	fill_config();
	error = allocate_resource(&iomem_resource, &window, 2 * RIG_LOCAL_MEMORY, RIG_WINDOW_START, ~0ULL,
				  RIG_LOCAL_MEMORY, NULL, NULL);
	if (error)
		return error;
	pci_add_resource(&resources, &numbers);
	pci_add_resource(&resources, &window);

	pci_lock_rescan_remove();
	bus = pci_create_root_bus(NULL, RIG_BUS, &ops, &sysdata, &resources);
	if (bus) {
		pci_scan_child_bus(bus);
		pci_bus_assign_resources(bus);
		pci_bus_add_devices(bus);
	}
	pci_unlock_rescan_remove();
	if (!bus) {
		pci_free_resource_list(&resources);
		release_resource(&window);
		return -ENODEV;
	}
	return 0;
}

static void __exit rig_exit(void)
{
	pci_lock_rescan_remove();
	pci_stop_root_bus(bus);
	pci_remove_root_bus(bus);
	pci_unlock_rescan_remove();
	release_resource(&window);
}

module_init(rig_init);
module_exit(rig_exit);
MODULE_DESCRIPTION("xpu.fleet test fixture: a PCI function that says it is a GPU");
MODULE_LICENSE("GPL");
