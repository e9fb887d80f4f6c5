//! Memory that a process does not need now.
#![allow(unsafe_code)]

use std::ptr;

/// Gives the pages of programs and libraries back that were never written to: they are read again from
/// the page cache, where the host keeps most of them anyway, as they are needed.
pub(super) fn give_back_program() {
    // SAFETY: the function below fits, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(give_back), ptr::null_mut()) };
}

/// Whether the loader wrote into what cannot be written now; nothing that is built in this century's
/// manner has that.
fn has_text_relocations(info: &libc::dl_phdr_info) -> bool {
    const DT_TEXTREL: usize = 22;
    const DT_FLAGS: usize = 30;
    const DF_TEXTREL: usize = 4;
    for n in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: there are so many of them.
        let head = unsafe { &*info.dlpi_phdr.add(n) };
        if head.p_type != libc::PT_DYNAMIC {
            continue;
        }
        let mut entry = (info.dlpi_addr as usize + head.p_vaddr as usize) as *const [usize; 2];
        loop {
            // SAFETY: the loader read the same table, which ends with a zero tag.
            let [tag, value] = unsafe { *entry };
            match tag {
                0 => break,
                DT_TEXTREL => return true,
                DT_FLAGS if value & DF_TEXTREL != 0 => return true,
                // SAFETY: not the last.
                _ => entry = unsafe { entry.add(1) },
            }
        }
    }
    false
}

unsafe extern "C" fn give_back(
    info: *mut libc::dl_phdr_info,
    _: usize,
    _: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: libc passes one that is valid during the call.
    let info = unsafe { &*info };
    if has_text_relocations(info) {
        return 0;
    }
    for n in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: there are so many of them.
        let head = unsafe { &*info.dlpi_phdr.add(n) };
        if head.p_type != libc::PT_LOAD || head.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = info.dlpi_addr as usize + head.p_vaddr as usize;
        // Where pages are larger and this is not the start of one, the kernel refuses.
        let (first, end) = (start & !0xfff, start + head.p_memsz as usize);
        // SAFETY: a private mapping of a file that cannot be written and never was, so that it holds
        // nothing but what is in the file.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED) };
    }
    0
}
