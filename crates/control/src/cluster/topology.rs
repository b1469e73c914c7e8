use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// A place in a [`Topology`]: a host, a switch, or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VertexId(u32);

/// A link of a [`Topology`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u32);

/// Something that flows share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Bytes per second, of all flows together.
    pub bandwidth: u64,
}

/// A way through the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The links on it, in order.
    pub links: Vec<LinkId>,
    /// From one end to the other, in nanoseconds.
    pub latency: u64,
}

/// The network: a graph in which links are vertices too, as in ether, so that a link may be shared by many hosts (a
/// radio cell) as well as stand between two. Edges are directed and have a latency.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    vertices: Vec<Vertex>,
    names: BTreeMap<String, VertexId>,
    links: Vec<Link>,
}

#[derive(Clone, Debug, Default)]
struct Vertex {
    name: String,
    link: Option<LinkId>,
    out: Vec<(VertexId, u64)>,
    into: Vec<(VertexId, u64)>,
}

impl VertexId {
    const fn index(self) -> usize {
        self.0 as usize
    }
}

impl LinkId {
    /// The place as an index from 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl Topology {
    /// The links.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The vertex of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<VertexId> {
        self.names.get(name).copied()
    }

    /// The names of all vertices, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.names.keys().map(String::as_str)
    }

    /// The name of a vertex.
    #[must_use]
    pub fn name(&self, vertex: VertexId) -> &str {
        &self.vertices[vertex.index()].name
    }

    /// The vertex of this name, a switch if it is new.
    pub(super) fn switch(&mut self, name: &str) -> VertexId {
        if let Some(&known) = self.names.get(name) {
            return known;
        }
        let id = VertexId(self.vertices.len() as u32);
        self.vertices.push(Vertex { name: name.to_owned(), ..Vertex::default() });
        self.names.insert(name.to_owned(), id);
        id
    }

    /// A new link of so many bytes per second.
    pub(super) fn link(&mut self, name: &str, bandwidth: u64) -> VertexId {
        let id = self.switch(name);
        self.vertices[id.index()].link = Some(LinkId(self.links.len() as u32));
        self.links.push(Link { name: name.to_owned(), bandwidth });
        id
    }

    /// Joins two vertices in one direction.
    pub(super) fn connect(&mut self, from: VertexId, to: VertexId, latency: u64) {
        self.vertices[from.index()].out.push((to, latency));
        self.vertices[to.index()].into.push((from, latency));
    }

    /// Joins two vertices in both directions.
    pub(super) fn join(&mut self, one: VertexId, other: VertexId, latency: u64) {
        self.connect(one, other, latency);
        self.connect(other, one, latency);
    }

    /// The quickest way from `source` to each of the others, and among those the one with the fewest hops; `None`
    /// where there is none. In nanoseconds and steps backwards.
    #[must_use]
    pub fn routes_from(&self, source: VertexId) -> Routes {
        Routes { tree: self.tree(source, false), root: source, towards: false }
    }

    /// The quickest way from each of the others to `sink`.
    #[must_use]
    pub fn routes_to(&self, sink: VertexId) -> Routes {
        Routes { tree: self.tree(sink, true), root: sink, towards: true }
    }

    /// Dijkstra's algorithm, ties in the order of the vertices.
    fn tree(&self, root: VertexId, towards: bool) -> Vec<Option<Step>> {
        let mut tree: Vec<Option<Step>> = vec![None; self.vertices.len()];
        let mut open = BinaryHeap::new();
        open.push(Reverse((0, 0, root, root)));
        while let Some(Reverse((latency, hops, vertex, before))) = open.pop() {
            if tree[vertex.index()].is_some() {
                continue;
            }
            tree[vertex.index()] = Some(Step { latency, before });
            let Vertex { out, into, .. } = &self.vertices[vertex.index()];
            for &(next, further) in if towards { into } else { out } {
                if tree[next.index()].is_none() {
                    open.push(Reverse((latency + further, hops + 1, next, vertex)));
                }
            }
        }
        tree
    }

    /// The route between the root of `routes` and `end`; `None` if there is none.
    #[must_use]
    pub fn route(&self, routes: &Routes, end: VertexId) -> Option<Route> {
        let latency = routes.tree[end.index()]?.latency;
        let mut links = Vec::new();
        let mut vertex = end;
        loop {
            links.extend(self.vertices[vertex.index()].link);
            if vertex == routes.root {
                break;
            }
            vertex = routes.tree[vertex.index()]?.before;
        }
        // Walked from the end to the root.
        if !routes.towards {
            links.reverse();
        }
        Some(Route { links, latency })
    }

    /// Bytes per second of the narrowest link between the root of `routes` and `end`; without bound where no link is
    /// between them, `None` where there is no way.
    #[must_use]
    pub fn narrowest(&self, routes: &Routes, end: VertexId) -> Option<u64> {
        let mut least = u64::MAX;
        let mut vertex = end;
        loop {
            let step = routes.tree[vertex.index()]?;
            if let Some(link) = self.vertices[vertex.index()].link {
                least = least.min(self.links[link.index()].bandwidth);
            }
            if vertex == routes.root {
                return Some(least);
            }
            vertex = step.before;
        }
    }
}

/// Ways between one vertex and all others; see [`Topology::routes_from`].
#[derive(Clone, Debug)]
pub struct Routes {
    tree: Vec<Option<Step>>,
    root: VertexId,
    towards: bool,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    latency: u64,
    before: VertexId,
}
