//! The places that ether makes (`ether/scenarios`, `ether/blocks/cells.py`), with its bandwidths, and the modes of its
//! latency laws (`ether/qos/latency.py`): a log-normal of shape s, location l and scale m has its mode at
//! m exp(-s^2) + l.

use super::build::{Builder, Host, INTERNET};
use super::topology::VertexId;
use crate::config::{Bandwidth, Scene};

/// LAN: s 0.25, l 0.35, m 0.16 ms.
pub(super) const LAN: u64 = 500_301;
/// Business uplink: s 0.87, l 5.95, m 1.21 ms.
const BUSINESS: u64 = 6_517_633;
/// Mobile uplink: s 0.49, l 16.2, m 8.02 ms.
const MOBILE: u64 = 22_508_177;

/// The way to the outside of a place.
#[derive(Clone, Copy)]
struct Uplink {
    down: u64,
    up: u64,
    to: VertexId,
    latency: u64,
}

impl Builder<'_> {
    pub(super) fn scene(&mut self, scene: &Scene) {
        let internet = self.topology.switch(INTERNET);
        match scene {
            Scene::UrbanSensing { cells, density, cloudlet } => {
                for cell in 0..*cells {
                    self.neighbourhood(cell, *density, internet);
                }
                let fibre = Uplink { down: 1_000, up: 1_000, to: internet, latency: LAN };
                self.cloudlet("cloudlet", *cloudlet, Some(fibre), internet, true);
            }
            Scene::IndustrialIot { premises } => {
                for number in 0..*premises {
                    self.factory(number, internet);
                }
            }
            Scene::CloudRegions { regions, racks, latency } => {
                let latency = u64::try_from(latency.get().as_nanos()).unwrap_or(u64::MAX) / 2;
                for region in regions {
                    let at = self.topology.switch(region);
                    self.topology.join(at, internet, latency);
                    self.cloudlet(&format!("{region}-cloudlet"), *racks, None, at, false);
                }
            }
            Scene::EdgeCloudlets { cloudlets, racks } => {
                let fibre = Uplink { down: 1_000, up: 1_000, to: internet, latency: LAN };
                for number in 0..*cloudlets {
                    self.cloudlet(
                        &format!("cloudlet-{number}"),
                        *racks,
                        Some(fibre),
                        internet,
                        true,
                    );
                }
            }
        }
    }

    /// `UrbanSensingScenario.create_city`: boxes of two sensors each, and one box that computes, on one shared link.
    fn neighbourhood(&mut self, cell: u32, density: u32, internet: VertexId) {
        let name = format!("cell-{cell}");
        let air = self.topology.link(&format!("{name}-air"), mbit(500));
        for sensor in 0..density {
            let lan = self.lan(&format!("{name}-box-{sensor}"), air);
            for side in ["a", "b"] {
                self.host(&format!("{name}-rpi3-{sensor}{side}"), "rpi3", lan, true);
            }
        }
        let lan = self.lan(&format!("{name}-compute"), air);
        self.host(&format!("{name}-nuc"), "nuc", lan, true);
        for number in 0..2 * density {
            self.host(&format!("{name}-tx2-{number}"), "tx2", lan, true);
        }
        self.uplink(&name, air, Uplink { down: 125, up: 25, to: internet, latency: MOBILE });
    }

    /// `IndustrialIoTScenario.materialize`.
    fn factory(&mut self, number: u32, internet: VertexId) {
        let name = format!("factory-{number}");
        let switch = self.topology.switch(&format!("{name}-switch"));
        let floor = self.lan(&format!("{name}-floor"), switch);
        self.host(&format!("{name}-nuc"), "nuc", floor, true);
        self.host(&format!("{name}-tx2"), "tx2", floor, true);
        let air = self.topology.link(&format!("{name}-air"), mbit(300));
        self.topology.join(air, switch, LAN);
        for sensor in 0..3 {
            self.host(&format!("{name}-rpi3-{sensor}"), "rpi3", air, true);
        }
        let out = Uplink { down: 500, up: 50, to: internet, latency: BUSINESS };
        self.uplink(&name, switch, out);
        let inside = Uplink { down: 10_000, up: 10_000, to: switch, latency: 0 };
        self.cloudlet(&format!("{name}-cloudlet"), [5, 3], Some(inside), switch, true);
    }

    /// `Cloudlet`: racks of servers behind one switch.
    fn cloudlet(
        &mut self,
        name: &str,
        [servers, racks]: [u32; 2],
        uplink: Option<Uplink>,
        at: VertexId,
        edge: bool,
    ) {
        let switch = self.topology.switch(&format!("{name}-switch"));
        for rack in 0..racks {
            let lan = self.lan(&format!("{name}-rack-{rack}"), switch);
            for server in 0..servers {
                self.host(&format!("{name}-server-{rack}-{server}"), "server", lan, edge);
            }
        }
        match uplink {
            Some(uplink) => self.uplink(name, switch, uplink),
            None => self.topology.join(switch, at, LAN),
        }
    }

    /// A switch of hosts, joined to another place.
    fn lan(&mut self, name: &str, to: VertexId) -> VertexId {
        let switch = self.topology.switch(name);
        self.topology.join(switch, to, LAN);
        switch
    }

    fn uplink(&mut self, name: &str, from: VertexId, uplink: Uplink) {
        let up = self.topology.link(&format!("{name}-up"), mbit(uplink.up));
        let down = self.topology.link(&format!("{name}-down"), mbit(uplink.down));
        self.topology.connect(from, up, uplink.latency);
        self.topology.connect(up, uplink.to, 0);
        self.topology.connect(uplink.to, down, uplink.latency);
        self.topology.connect(down, from, 0);
    }

    fn host(&mut self, name: &str, device: &'static str, at: VertexId, edge: bool) {
        self.add_host(Host { name, device, at, bandwidth: mbit(1_000), latency: LAN, edge });
    }
}

const fn mbit(mbit: u64) -> u64 {
    Bandwidth::from_mbit(mbit).bytes_per_second()
}
