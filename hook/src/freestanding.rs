//! A process without Rust's standard library: its entry, its memory, its panic. Linked with a static C library.

#![expect(unsafe_code, reason = "what the standard library would do here is unsafe by nature")]

extern crate alloc;

use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_char, c_int};
use core::panic::PanicInfo;

use guardian_hook::runner::{self, Environment};

/// What the C library calls.
///
/// # Safety
/// Both arrays are those of the process: of C strings, ended by null.
#[unsafe(no_mangle)]
unsafe extern "C" fn main(_argc: c_int, argv: *const *const c_char, envp: *const *const c_char) -> c_int {
    // SAFETY: it only sets a number.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED) };
    // SAFETY: as promised above.
    let (args, env) = unsafe { (strings(argv), strings(envp)) };
    let variables = env.iter().filter_map(|v| {
        let equals = v.iter().position(|b| *b == b'=')?;
        Some((v.get(..equals)?.to_vec(), v.get(equals + 1..)?.to_vec()))
    });
    runner::main(&args, &variables.collect::<Environment>()).into()
}

/// # Safety
/// An array of C strings, ended by null.
unsafe fn strings(mut array: *const *const c_char) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    // SAFETY: it stops at the null that ends the array.
    while let Some(text) = unsafe { array.read().as_ref() } {
        // SAFETY: not null, so a C string; the next element is there because this was not the last.
        unsafe {
            all.push(CStr::from_ptr(text).to_bytes().to_vec());
            array = array.add(1);
        }
    }
    all
}

/// A buffer of so many bytes is mapped on its own, and goes back to the kernel once it is free: tails, outcomes and what waits for a slow reader.
const MAPPED: c_int = 16 * 1024;

/// The C library's heap. `malloc` aligns to 16 bytes, and nothing here asks for more.
struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

// SAFETY: malloc, realloc and free keep the contract for alignments up to 16; a larger one is refused.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 16 {
            return core::ptr::null_mut();
        }
        // SAFETY: any size may be asked for.
        unsafe { libc::malloc(layout.size()).cast() }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: it came from malloc or realloc.
        unsafe { libc::free(pointer.cast()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: it came from malloc or realloc.
        unsafe { libc::realloc(pointer.cast(), size).cast() }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    runner::complain(&alloc::format!("{info}"));
    abort()
}

fn abort() -> ! {
    // SAFETY: it takes nothing and does not return.
    unsafe { libc::abort() }
}

// Nothing unwinds here (`panic = "abort"`), but the prebuilt `alloc` and the C library name these in their tables.

#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() -> ! {
    abort()
}

#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    abort()
}

#[unsafe(no_mangle)]
extern "C" fn __gcc_personality_v0() -> ! {
    abort()
}
