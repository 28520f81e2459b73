"""The LightningModule, its losses, augmentation, callbacks, and one run."""
