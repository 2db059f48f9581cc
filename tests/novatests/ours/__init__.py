"""Our own functional tests: Nova's API, conductor, scheduler, computes and a real Placement in one process.

libvirt is fakelibvirt, one connection per host. Namespaces are real files, one directory and one ledger per host; the
guest writes a pattern of its own into its file, and the tests look at bytes. VPMEM_COMPUTE_DRIVER=libvirt.LibvirtDriver
runs them with the in-tree driver, to show what is wrong there.
"""
