//! Where the objects are: the double, or a real API server if one was given.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;
use sheave_lab::Namespace;
use sheave_tests::apiserver::load::{Load, Shape};
use sheave_tests::apiserver::{ApiServer, Config};

use super::control_plane::{ControlPlane, Programs};
use crate::peer::Access;

/// An API server in a contender's namespace. Dropping it ends it.
pub(super) enum Api {
    Double(Double),
    Real(Box<Real>),
}

pub(super) struct Double {
    server: ApiServer,
    url: String,
}

pub(super) struct Real {
    control_plane: ControlPlane,
    kubeconfig: PathBuf,
}

impl Api {
    /// Starts one. Without programs it is the double.
    pub(super) fn start(node: &Namespace, programs: Option<&Programs>) -> Result<Self> {
        if let Some(programs) = programs {
            let control_plane = ControlPlane::start(node, programs)?;
            let kubeconfig = control_plane.kubeconfig();
            return Ok(Self::Real(Box::new(Real { control_plane, kubeconfig })));
        }
        let server = node.run(|| ApiServer::start(Config::default()))?.context("starting the API server double")?;
        let url = server.url();
        Ok(Self::Double(Double { server, url }))
    }

    pub(super) fn access(&self) -> Access<'_> {
        match self {
            Self::Double(double) => Access::Double(&double.url),
            Self::Real(real) => Access::Kubeconfig(&real.kubeconfig),
        }
    }

    /// Creates the objects of a shape. This and what follows are for threads of the contender's namespace.
    pub(super) fn fill(&self, shape: Shape) -> Result<()> {
        match self {
            Self::Double(double) => Load::fill(&double.server, shape).map(drop).context("filling the API server double"),
            Self::Real(real) => real.control_plane.fill(shape).context("filling the API server"),
        }
    }

    /// Creates one object.
    pub(super) fn create(&self, object: &Value) -> Result<()> {
        match self {
            Self::Double(double) => double.server.apply(object).map(drop).with_context(|| format!("creating {}", object["kind"])),
            Self::Real(real) => real.control_plane.create(object),
        }
    }

    /// Changes one that is there.
    pub(super) fn change(&self, object: &Value) -> Result<()> {
        match self {
            Self::Double(double) => double.server.apply(object).map(drop).with_context(|| format!("changing {}", object["kind"])),
            Self::Real(real) => real.control_plane.change(object),
        }
    }
}
