//! The published phone files, read-only, over TFTP (RFC 1350 with the options of RFC 2347, 2348 and 2349), HTTP on 6970 and
//! HTTPS on 6971.
//!
//! [`name`], [`packet`], [`options`] and [`transfer`] do no input or output; [`udp`] and [`http`] are the thin loops around
//! them. A name from the network is never a path: it is parsed into a [`name::Published`], and that names the file.
#![forbid(unsafe_code)]

pub mod files;
pub mod http;
pub mod name;
pub mod options;
pub mod packet;
pub mod settings;
pub mod transfer;
pub mod udp;
