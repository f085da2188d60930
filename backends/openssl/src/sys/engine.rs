//! ENGINE, which OpenSSL had until version 4: hardware behind an older interface. Its functions are looked up when they are
//! needed, so that this program starts where they are no more.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr::{NonNull, null_mut};

use openssl_sys::ENGINE;
use zeroize::Zeroizing;

use super::errors::{self, text};
use super::pkey::Key;
use super::{context, raw};

/// The functions.
struct Functions {
    by_id: raw::EngineById,
    init: raw::EngineDo,
    finish: raw::EngineDo,
    free: raw::EngineDo,
    name: raw::EngineText,
    command: raw::EngineCommand,
    load_private_key: raw::EngineKey,
}

/// An engine that works.
pub(crate) struct Engine {
    functions: Functions,
    engine: NonNull<ENGINE>,
}

// SAFETY: engines are counted and have locks of their own (ENGINE_init(3)).
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

impl Engine {
    /// Loads an engine by its name and tells it the commands, then starts it. No command's value is ever part of an error.
    pub(crate) fn open(id: &str, commands: &[(String, Zeroizing<String>)]) -> Result<Self, String> {
        let Some(functions) = functions().filter(|_| context::major() < 4) else {
            return Err(format!(
                "{} has no engines any more (they went with OpenSSL 4): use the provider that came in this engine's place, \
                 with `provider = …` instead of `engine = …`",
                context::version()
            ));
        };
        let c_id = CString::new(id).map_err(|_| "a name has no zero octet".to_owned())?;
        errors::clear();
        // SAFETY: the name ends with a zero; null on failure.
        let engine = unsafe { (functions.by_id)(c_id.as_ptr()) };
        let engine = NonNull::new(engine).ok_or_else(errors::take)?;
        for (name, value) in commands {
            let c_text =
                |text: &str| CString::new(text).map(CString::into_bytes_with_nul).map(Zeroizing::new);
            let (Ok(c_name), Ok(c_value)) = (c_text(name), c_text(value)) else {
                return Err(format!("the command {name} or its value has a zero octet"));
            };
            // SAFETY: the engine is live, both texts end with a zero; they are copied.
            let ok = unsafe {
                (functions.command)(engine.as_ptr(), c_name.as_ptr().cast(), c_value.as_ptr().cast(), 0)
            };
            if ok != 1 {
                let why = errors::take();
                // SAFETY: by_id gave one reference, which is given back.
                unsafe { (functions.free)(engine.as_ptr()) };
                return Err(format!("it refuses the command {name}: {why}"));
            }
        }
        // SAFETY: the engine is live. On failure the reference of by_id is given back; on success finish and free in drop do.
        if unsafe { (functions.init)(engine.as_ptr()) } != 1 {
            let why = errors::take();
            // SAFETY: as above.
            unsafe { (functions.free)(engine.as_ptr()) };
            return Err(format!("it does not start: {why}"));
        }
        errors::clear();
        Ok(Engine { functions, engine })
    }

    /// What it calls itself.
    pub(crate) fn name(&self) -> String {
        // SAFETY: the engine is live, and so is its name.
        text(unsafe { (self.functions.name)(self.engine.as_ptr()) }).unwrap_or_default()
    }

    /// A private key by whatever names one there, for `pkcs11` a URI.
    pub(crate) fn private_key(&self, name: &str) -> Result<Key, String> {
        let name = CString::new(name).map_err(|_| "a URI has no zero octet".to_owned())?;
        errors::clear();
        // SAFETY: the engine is live, the name ends with a zero. With the user interface that answers nothing nobody is asked for
        // a PIN; without any, OpenSSL would ask at the terminal.
        let key = unsafe {
            (self.functions.load_private_key)(self.engine.as_ptr(), name.as_ptr(), raw::UI_null(), null_mut())
        };
        Key::take(key).ok_or_else(errors::take)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: one reference each of init and by_id is given back; keys of it hold their own.
        unsafe {
            (self.functions.finish)(self.engine.as_ptr());
            (self.functions.free)(self.engine.as_ptr());
        }
        errors::clear();
    }
}

fn functions() -> Option<Functions> {
    // SAFETY: each is, in every version that has it, what raw says it is.
    unsafe {
        Some(Functions {
            by_id: std::mem::transmute::<NonNull<()>, raw::EngineById>(symbol(c"ENGINE_by_id")?),
            init: std::mem::transmute::<NonNull<()>, raw::EngineDo>(symbol(c"ENGINE_init")?),
            finish: std::mem::transmute::<NonNull<()>, raw::EngineDo>(symbol(c"ENGINE_finish")?),
            free: std::mem::transmute::<NonNull<()>, raw::EngineDo>(symbol(c"ENGINE_free")?),
            name: std::mem::transmute::<NonNull<()>, raw::EngineText>(symbol(c"ENGINE_get_name")?),
            command: std::mem::transmute::<NonNull<()>, raw::EngineCommand>(symbol(
                c"ENGINE_ctrl_cmd_string",
            )?),
            load_private_key: std::mem::transmute::<NonNull<()>, raw::EngineKey>(symbol(
                c"ENGINE_load_private_key",
            )?),
        })
    }
}

fn symbol(name: &CStr) -> Option<NonNull<()>> {
    // SAFETY: the name ends with a zero; null where no loaded library has it.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.cast())
}
