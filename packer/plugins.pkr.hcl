# For Packer 1.7 and newer: `packer init packer/plugins.pkr.hcl`. Packer 1.6 has the builders built in and
# knows no required_plugins; that is why this is a file of its own.
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.2.0"
    }
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = ">= 1.0.0"
    }
  }
}
