package fs

import gofs "github.com/hanwen/go-fuse/v2/fs"

// Every callback that the tree counts on: a misspelt one would silently be the
// library's default.
var (
	_ gofs.NodeGetattrer      = (*dirNode)(nil)
	_ gofs.NodeSetattrer      = (*dirNode)(nil)
	_ gofs.NodeStatfser       = (*dirNode)(nil)
	_ gofs.NodeFsyncer        = (*dirNode)(nil)
	_ gofs.NodeLookuper       = (*dirNode)(nil)
	_ gofs.NodeOpendirHandler = (*dirNode)(nil)
	_ gofs.NodeMkdirer        = (*dirNode)(nil)
	_ gofs.NodeRmdirer        = (*dirNode)(nil)
	_ gofs.NodeUnlinker       = (*dirNode)(nil)
	_ gofs.NodeRenamer        = (*dirNode)(nil)
	_ gofs.NodeCreater        = (*dirNode)(nil)
	_ gofs.FileReaddirenter   = (*dirHandle)(nil)
	_ gofs.FileSeekdirer      = (*dirHandle)(nil)

	_ gofs.NodeGetattrer = (*fileNode)(nil)
	_ gofs.NodeSetattrer = (*fileNode)(nil)
	_ gofs.NodeStatfser  = (*fileNode)(nil)
	_ gofs.NodeFsyncer   = (*fileNode)(nil)
	_ gofs.NodeOpener    = (*fileNode)(nil)

	_ gofs.NodeGetattrer  = (*linkNode)(nil)
	_ gofs.NodeSetattrer  = (*linkNode)(nil)
	_ gofs.NodeStatfser   = (*linkNode)(nil)
	_ gofs.NodeReadlinker = (*linkNode)(nil)

	_ gofs.FileReader  = (*textHandle)(nil)
	_ gofs.FileLseeker = (*textHandle)(nil)

	_ gofs.FileReader   = (*randomHandle)(nil)
	_ gofs.FileWriter   = (*randomHandle)(nil)
	_ gofs.FileReleaser = (*randomHandle)(nil)

	_ gofs.FileReader = (*newSessionHandle)(nil)

	_ gofs.FileReader   = (*resultHandle)(nil)
	_ gofs.FileReleaser = (*resultHandle)(nil)

	_ gofs.FileReader   = (*commandHandle)(nil)
	_ gofs.FileWriter   = (*commandHandle)(nil)
	_ gofs.FileReleaser = (*commandHandle)(nil)

	_ gofs.FileReader   = (*streamHandle)(nil)
	_ gofs.FileWriter   = (*streamHandle)(nil)
	_ gofs.FileFlusher  = (*streamHandle)(nil)
	_ gofs.FileReleaser = (*streamHandle)(nil)

	_ gofs.FileReader   = (*blobHandle)(nil)
	_ gofs.FileWriter   = (*blobHandle)(nil)
	_ gofs.FileFlusher  = (*blobHandle)(nil)
	_ gofs.FileReleaser = (*blobHandle)(nil)
)
