//! Graphs: the work that a capture has recorded, which can be launched any number of times.

use std::sync::Arc;

use super::capture::{self, Node};
use super::context::Context;
use super::handle::{Handle, Table};
use super::result::Error;
use super::stream;
use super::{Answer, Status, call, failing, put};

const AUTO_FREE_ON_LAUNCH: u64 = 1;
const UPLOAD: u64 = 2;
const DEVICE_LAUNCH: u64 = 4;
const USE_NODE_PRIORITY: u64 = 8;

/// Nodes in an order in which they may be executed: each is after those it waits for.
struct Graph {
    context: Arc<Context>,
    nodes: Arc<[Node]>,
}

/// CUgraph and CUgraphExec. Nodes never change, so an executable graph shares them with its graph.
static GRAPHS: Table<Graph> = Table::new();
static EXECUTABLES: Table<Graph> = Table::new();

pub fn insert(context: Arc<Context>, nodes: Vec<Node>) -> Handle {
    let nodes = nodes.into();
    GRAPHS.insert(Graph { context, nodes })
}

/// Removes the graphs of a destroyed context.
pub fn forget(context: &Arc<Context>) {
    GRAPHS.retain(|graph| !Arc::ptr_eq(&graph.context, context));
    EXECUTABLES.retain(|graph| !Arc::ptr_eq(&graph.context, context));
}

fn instantiate(executable: *mut Handle, graph: Handle, flags: u64) -> Answer {
    let graph = GRAPHS.get(graph)?;
    graph.context.check()?;
    let known = AUTO_FREE_ON_LAUNCH | UPLOAD | DEVICE_LAUNCH | USE_NODE_PRIORITY;
    let both = AUTO_FREE_ON_LAUNCH | DEVICE_LAUNCH;
    if flags & !known != 0 || flags & both == both {
        return Err(Error::INVALID_VALUE);
    }
    if flags & DEVICE_LAUNCH != 0 {
        return Err(Error::NOT_SUPPORTED);
    }
    let handle = EXECUTABLES.insert(Graph {
        context: graph.context.clone(),
        nodes: graph.nodes.clone(),
    });
    // SAFETY: null or writable, as the driver API requires.
    let result = unsafe { put(executable, handle) };
    if result.is_err() {
        EXECUTABLES.remove(handle)?;
    }
    result
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphInstantiateWithFlags(
    executable: *mut Handle,
    graph: Handle,
    flags: u64,
) -> Status {
    call(|_| instantiate(executable, graph, flags))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphGetNodes(
    graph: Handle,
    nodes: *mut Handle,
    count: *mut usize,
) -> Status {
    call(|_| {
        let graph = GRAPHS.get(graph)?;
        if !nodes.is_null() {
            // Nodes have no handles: they can be counted but not changed.
            return Err(Error::NOT_SUPPORTED);
        }
        // SAFETY: null or writable, as the driver API requires.
        unsafe { put(count, graph.nodes.len()) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(executable: Handle, stream: Handle) -> Status {
    call(|_| {
        let graph = EXECUTABLES.get(executable)?;
        let stream = stream::get(stream)?;
        if !Arc::ptr_eq(&graph.context, &stream.context) {
            return Err(Error::INVALID_CONTEXT);
        }
        capture::refuse(&stream)?;
        failing::launch(&stream.context)?;
        for node in graph.nodes.iter() {
            // SAFETY: a program that captures a copy keeps its host memory alive while the graph is launched.
            let result = unsafe { node.work.execute_in_graph(&graph.context) };
            if graph.context.check().is_err() && !graph.context.environment.blocking {
                return Ok(());
            }
            result?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphUpload(executable: Handle, stream: Handle) -> Status {
    call(|_| {
        EXECUTABLES.get(executable)?;
        capture::refuse(&*stream::get(stream)?)
    })
}

fn destroy(table: &Table<Graph>, handle: Handle) -> Status {
    call(|_| table.remove(handle)?.context.check())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphExecDestroy(executable: Handle) -> Status {
    destroy(&EXECUTABLES, executable)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphDestroy(graph: Handle) -> Status {
    destroy(&GRAPHS, graph)
}
