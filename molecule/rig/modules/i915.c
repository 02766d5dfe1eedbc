// SPDX-License-Identifier: GPL-2.0
/*
 * A test fixture of the Ansible collection xpu.fleet in the place of @PACKAGE@: it binds to an Arc A770 and makes
 * its device nodes, as the real driver does, and can do nothing else.
 */
#include <linux/module.h>
#include <linux/pci.h>

#if IS_ENABLED(CONFIG_DRM)
#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_ioctl.h>

DEFINE_DRM_GEM_FOPS(fixture_fops);

static const struct drm_driver fixture_driver = {
	.driver_features = DRIVER_GEM | DRIVER_RENDER,
	.fops = &fixture_fops,
	.name = "i915",
	.desc = "xpu.fleet test fixture",
	.date = "20230701",
	.major = 1,
	.minor = 6,
};

static ssize_t lmem_total_bytes_show(struct device *device, struct device_attribute *attribute, char *text)
{
	struct drm_minor *minor = dev_get_drvdata(device);

	return sysfs_emit(text, "%llu\n", (u64)pci_resource_len(to_pci_dev(minor->dev->dev), 2));
}
static DEVICE_ATTR_RO(lmem_total_bytes);

static int fixture_probe(struct pci_dev *device, const struct pci_device_id *id)
{
	struct drm_device *drm;
	int error = pcim_enable_device(device);

	if (error)
		return error;
	drm = drm_dev_alloc(&fixture_driver, &device->dev);
	if (IS_ERR(drm))
		return PTR_ERR(drm);
	pci_set_drvdata(device, drm);
	error = drm_dev_register(drm, 0);
	if (error) {
		drm_dev_put(drm);
		return error;
	}
	error = device_create_file(drm->primary->kdev, &dev_attr_lmem_total_bytes);
	if (error)
		dev_warn(&device->dev, "no lmem_total_bytes: %d\n", error);
	return 0;
}

static void fixture_remove(struct pci_dev *device)
{
	struct drm_device *drm = pci_get_drvdata(device);

	device_remove_file(drm->primary->kdev, &dev_attr_lmem_total_bytes);
	drm_dev_unregister(drm);
	drm_dev_put(drm);
}
#else
static int fixture_probe(struct pci_dev *device, const struct pci_device_id *id)
{
	return pcim_enable_device(device);
}

static void fixture_remove(struct pci_dev *device)
{
}
#endif

static const struct pci_device_id fixture_ids[] = { { PCI_DEVICE(PCI_VENDOR_ID_INTEL, 0x56a0) }, {} };
MODULE_DEVICE_TABLE(pci, fixture_ids);

static struct pci_driver fixture_pci_driver = {
	.name = "i915",
	.id_table = fixture_ids,
	.probe = fixture_probe,
	.remove = fixture_remove,
};
module_pci_driver(fixture_pci_driver);

MODULE_DESCRIPTION("xpu.fleet test fixture in the place of @PACKAGE@");
MODULE_LICENSE("GPL");
MODULE_VERSION("@VERSION@");
