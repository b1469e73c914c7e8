use super::Resources;

/// A kind of machine.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Its name, as models use it.
    pub name: &'static str,
    /// Architecture, as [`arch_name`](super::arch_name) spells it.
    pub arch: &'static str,
    /// Thousandths of a core.
    pub cpu: u64,
    /// Bytes.
    pub memory: u64,
    /// Kind of its accelerator, if it has one.
    pub accelerator: Option<&'static str>,
    /// Whether it stands at the edge of the network.
    pub edge: bool,
}

const MIB: u64 = 1024 * 1024;
const GB: u64 = 1_000_000_000;

/// The machines of the testbeds that faas-sim's measurements come from, with the sizes that ether
/// (`ether/blocks/nodes.py`) gives them. The two Xeons are ether's server without and with a GPU.
pub const DEVICES: [Device; 12] = [
    device("rpi3", "arm", 4, 999_036 * 1024, None, true),
    device("rpi4", "arm", 4, GB, None, true),
    device("rockpi", "arm64", 6, 4 * GB, None, true),
    device("coral", "arm64", 4, GB, Some("tpu"), true),
    device("nano", "arm64", 4, 4 * GB, Some("gpu"), true),
    device("tx2", "arm64", 4, 8_047_252 * 1024, Some("gpu"), true),
    device("nx", "arm64", 6, 8 * GB, Some("gpu"), true),
    device("nuc", "amd64", 4, 16 * 1024 * MIB, None, true),
    device("xeoncpu", "amd64", 88, 188 * GB, None, false),
    device("xeongpu", "amd64", 88, 188 * GB, Some("gpu"), false),
    device("server", "amd64", 88, 188 * GB, None, false),
    device("vm", "amd64", 4, 8_167_784 * 1024, None, false),
];

const fn device(
    name: &'static str,
    arch: &'static str,
    cores: u64,
    memory: u64,
    accelerator: Option<&'static str>,
    edge: bool,
) -> Device {
    Device { name, arch, cpu: cores * 1_000, memory, accelerator, edge }
}

impl Device {
    /// The device of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        DEVICES.iter().find(|device| device.name == name)
    }

    /// What a machine of this kind has.
    #[must_use]
    pub fn resources(&self) -> Resources {
        Resources {
            cpu: self.cpu,
            memory: self.memory,
            accelerators: self.accelerator.iter().map(|kind| ((*kind).to_owned(), 1)).collect(),
        }
    }
}
