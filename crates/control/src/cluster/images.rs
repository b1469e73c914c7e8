use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An image of a [`Cluster`](super::Cluster), by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(u32);

/// What replicas run, one for each architecture that there is a build for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// The layers of each build, by architecture; "any" fits all others.
    pub builds: BTreeMap<String, Vec<Layer>>,
}

/// A part of an image. Two images share a layer that has one name and size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Bytes to be pulled.
    pub size: u64,
}

/// The build that fits every architecture that has none of its own.
pub(super) const ANY: &str = "any";

impl ImageId {
    /// The place as an index from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) const fn new(index: usize) -> Self {
        Self(index as u32)
    }
}

impl Image {
    /// The layers of the build for an architecture, as [`arch_name`] spells it.
    #[must_use]
    pub fn layers(&self, arch: &str) -> Option<&[Layer]> {
        self.builds.get(arch).or_else(|| self.builds.get(ANY)).map(Vec::as_slice)
    }

    /// Bytes of the build for an architecture.
    #[must_use]
    pub fn size(&self, arch: &str) -> Option<u64> {
        self.layers(arch).map(|layers| layers.iter().map(|layer| layer.size).sum())
    }
}

/// One spelling for each architecture: OCI's, with `arm` for all of 32 bits. A name that is not known stays as it is.
#[must_use]
pub fn arch_name(name: &str) -> &str {
    match name {
        "x86" | "x86_64" | "x64" | "amd64" => "amd64",
        "aarch64" | "arm64" | "arm64v8" => "arm64",
        "arm" | "arm32" | "arm32v7" | "armv7" | "armhf" => "arm",
        other => other,
    }
}
