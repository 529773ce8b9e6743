//! libibverbs, opened when it is first wanted: a machine without it needs nothing. Owns the library and its symbols,
//! for as long as the process lives; not what is made with them.

use std::{
    ffi::{c_char, c_int, c_uint, c_void},
    sync::OnceLock,
};

use libloading::{Library, Symbol};

use super::{RdmaError, abi};

/// The name of the library's first (and only) binary interface.
const NAME: &str = "libibverbs.so.1";

/// Makes a structure of function pointers, and a function that finds each of them by name.
macro_rules! symbols {
    ($($field:ident = $symbol:literal : fn($($arg:ty),*) $(-> $ret:ty)?;)*) => {
        /// The functions of the library. (Posting and polling go through the table in the device's context.)
        pub(crate) struct Verbs {
            $(pub(crate) $field: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            /// The pointers above are into it.
            _library: Library,
        }

        impl Verbs {
            fn load() -> Result<Self, libloading::Error> {
                // SAFETY: rdma-core's library has no initialiser that asks anything of its caller.
                let library = unsafe { Library::new(NAME)? };
                $(
                    // SAFETY: the types are those that `verbs.h` gives for this version of the interface, whose
                    // symbols keep their meaning; the pointer is kept together with the library.
                    let $field = unsafe {
                        let symbol: Symbol<'_, unsafe extern "C" fn($($arg),*) $(-> $ret)?> =
                            library.get(concat!($symbol, "\0").as_bytes())?;
                        *symbol
                    };
                )*
                Ok(Self { $($field,)* _library: library })
            }
        }
    };
}

symbols! {
    get_device_list = "ibv_get_device_list": fn(*mut c_int) -> *mut *mut abi::Device;
    free_device_list = "ibv_free_device_list": fn(*mut *mut abi::Device);
    get_device_name = "ibv_get_device_name": fn(*mut abi::Device) -> *const c_char;
    open_device = "ibv_open_device": fn(*mut abi::Device) -> *mut abi::Context;
    close_device = "ibv_close_device": fn(*mut abi::Context) -> c_int;
    query_device = "ibv_query_device": fn(*mut abi::Context, *mut abi::DeviceAttr) -> c_int;
    query_port = "ibv_query_port": fn(*mut abi::Context, u8, *mut abi::PortAttr) -> c_int;
    query_gid_ex = "_ibv_query_gid_ex":
        fn(*mut abi::Context, u32, u32, *mut abi::GidEntry, u32, usize) -> c_int;
    alloc_pd = "ibv_alloc_pd": fn(*mut abi::Context) -> *mut abi::ProtectionDomain;
    dealloc_pd = "ibv_dealloc_pd": fn(*mut abi::ProtectionDomain) -> c_int;
    reg_mr = "ibv_reg_mr":
        fn(*mut abi::ProtectionDomain, *mut c_void, usize, c_int) -> *mut abi::MemoryRegion;
    dereg_mr = "ibv_dereg_mr": fn(*mut abi::MemoryRegion) -> c_int;
    create_comp_channel = "ibv_create_comp_channel": fn(*mut abi::Context) -> *mut abi::CompletionChannel;
    destroy_comp_channel = "ibv_destroy_comp_channel": fn(*mut abi::CompletionChannel) -> c_int;
    create_cq = "ibv_create_cq":
        fn(*mut abi::Context, c_int, *mut c_void, *mut abi::CompletionChannel, c_int) -> *mut abi::Cq;
    destroy_cq = "ibv_destroy_cq": fn(*mut abi::Cq) -> c_int;
    get_cq_event = "ibv_get_cq_event":
        fn(*mut abi::CompletionChannel, *mut *mut abi::Cq, *mut *mut c_void) -> c_int;
    ack_cq_events = "ibv_ack_cq_events": fn(*mut abi::Cq, c_uint);
    create_qp = "ibv_create_qp": fn(*mut abi::ProtectionDomain, *mut abi::QpInitAttr) -> *mut abi::Qp;
    modify_qp = "ibv_modify_qp": fn(*mut abi::Qp, *mut abi::QpAttr, c_int) -> c_int;
    destroy_qp = "ibv_destroy_qp": fn(*mut abi::Qp) -> c_int;
    get_async_event = "ibv_get_async_event": fn(*mut abi::Context, *mut abi::AsyncEvent) -> c_int;
    ack_async_event = "ibv_ack_async_event": fn(*mut abi::AsyncEvent);
}

impl Verbs {
    /// The library; opened by the first call.
    pub(crate) fn get() -> Result<&'static Self, RdmaError> {
        static VERBS: OnceLock<Result<Verbs, String>> = OnceLock::new();
        let loaded = VERBS.get_or_init(|| Self::load().map_err(|error| error.to_string()));
        loaded.as_ref().map_err(|reason| RdmaError::NoLibrary { reason: reason.clone() })
    }
}
