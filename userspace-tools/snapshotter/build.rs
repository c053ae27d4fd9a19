// SPDX-License-Identifier: MIT OR Apache-2.0

//! Generates the services. `src/api.rs` has their messages.
//!
//! The methods are listed as in containerd's .proto files, so the build needs no compiler for these files.
//! Methods of containerd that this program does not call are left out.

use tonic_build::manual::{Builder, Method, Service};

/// A method: its names in Rust and in the protocol, and the types of its request and response.
type Call = (&'static str, &'static str, &'static str, &'static str);

fn service(
    package: &str,
    name: &str,
    calls: &[Call],
    streams: impl Fn(&str) -> (bool, bool),
) -> Service {
    let mut service = Service::builder().package(package).name(name);
    for (name, route, input, output) in calls {
        let mut method = Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("crate::api::{input}"))
            .output_type(format!("crate::api::{output}"))
            .codec_path("tonic_prost::ProstCodec");
        let (client, server) = streams(route);
        if client {
            method = method.client_streaming();
        }
        if server {
            method = method.server_streaming();
        }
        service = service.method(method.build());
    }
    service.build()
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let snapshots = service(
        "containerd.services.snapshots.v1",
        "Snapshots",
        &[
            ("prepare", "Prepare", "PrepareRequest", "MountsResponse"),
            ("view", "View", "PrepareRequest", "MountsResponse"),
            ("mounts", "Mounts", "KeyRequest", "MountsResponse"),
            ("commit", "Commit", "CommitRequest", "Empty"),
            ("remove", "Remove", "KeyRequest", "Empty"),
            ("stat", "Stat", "KeyRequest", "InfoMessage"),
            ("update", "Update", "UpdateRequest", "InfoMessage"),
            ("list", "List", "ListRequest", "ListResponse"),
            ("usage", "Usage", "KeyRequest", "UsageResponse"),
            ("cleanup", "Cleanup", "CleanupRequest", "Empty"),
        ],
        |route| (false, route == "List"),
    );
    let own = service(
        "puzzlefs.snapshotter.v1",
        "Images",
        &[("add", "Add", "AddRequest", "Empty")],
        |_| (false, false),
    );
    let diff = service(
        "containerd.services.diff.v1",
        "Diff",
        &[("apply", "Apply", "ApplyRequest", "ApplyResponse")],
        |_| (false, false),
    );
    Builder::new().compile(&[snapshots, own, diff]);

    let content = service(
        "containerd.services.content.v1",
        "Content",
        &[
            ("update", "Update", "ContentUpdateRequest", "Empty"),
            ("write", "Write", "WriteRequest", "WriteResponse"),
            ("list", "List", "ListContentRequest", "ListContentResponse"),
            ("read", "Read", "ReadContentRequest", "ReadContentResponse"),
        ],
        |route| {
            (
                route == "Write",
                route == "Write" || route == "List" || route == "Read",
            )
        },
    );
    let images = service(
        "containerd.services.images.v1",
        "Images",
        &[
            ("create", "Create", "ImageRequest", "Empty"),
            ("update", "Update", "ImageRequest", "Empty"),
        ],
        |_| (false, false),
    );
    let leases = service(
        "containerd.services.leases.v1",
        "Leases",
        &[
            ("create", "Create", "LeaseCreateRequest", "Empty"),
            ("delete", "Delete", "LeaseDeleteRequest", "Empty"),
            (
                "add_resource",
                "AddResource",
                "LeaseAddResourceRequest",
                "Empty",
            ),
        ],
        |_| (false, false),
    );
    Builder::new()
        .build_server(false)
        .compile(&[content, images, leases]);
}
