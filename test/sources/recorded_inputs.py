"""Inputs as people record them, each with what is to become of it: pictures, photographs, names and tables."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import recorded_pictures as pictures
from inputs import ANY, GEO, GPS, TABLE, Right, add, csv, exif_of, folder, photograph, put, save, tagged, without
from PIL import Image
from synthetic import picture

SHOWS = Right(looks=1)
NO_PLACE = Right(xyz=None, geo=None, yaw_deg=None)
RGB = picture(1)


def pictures_of_every_kind() -> None:
    """Files by format, depth, palette and damage."""
    grey = Image.fromarray(RGB).convert("L")
    for suffix, format in (
        ("jpg", "JPEG"),
        ("png", "PNG"),
        ("bmp", "BMP"),
        ("tif", "TIFF"),
        ("webp", "WEBP"),
        ("ppm", "PPM"),
    ):
        add(f"{format} file", folder(**{f"a_{suffix}": pictures.encoded(format)}), {f"a.{suffix}": SHOWS})
    add("JPEG with an upper-case ending", folder(a_JPG=pictures.encoded("JPEG")), {"a.JPG": SHOWS})
    add("PNG named jpg", folder(a_jpg=pictures.encoded("PNG")), {"a.jpg": SHOWS})
    add("progressive JPEG", folder(a_jpg=pictures.encoded("JPEG", progressive=True)), {"a.jpg": SHOWS})
    add("CMYK JPEG", folder(a_jpg=pictures.encoded("JPEG", Image.fromarray(RGB).convert("CMYK"))), {"a.jpg": SHOWS})
    add("grey JPEG", folder(a_jpg=pictures.encoded("JPEG", grey)), {"a.jpg": Right()})
    add("palette PNG", folder(a_png=pictures.encoded("PNG", Image.fromarray(RGB).quantize(256))), {"a.png": SHOWS})
    add("PNG with alpha", folder(a_png=pictures.encoded("PNG", Image.fromarray(RGB).convert("RGBA"))), {"a.png": SHOWS})
    add(
        "grey PNG with alpha",
        folder(a_png=pictures.encoded("PNG", Image.fromarray(RGB).convert("LA"))),
        {"a.png": Right()},
    )
    add("PNG of 1 bit", folder(a_png=pictures.encoded("PNG", Image.fromarray(RGB).convert("1"))), {"a.png": Right()})
    add("interlaced PNG", folder(a_png=pictures.encoded("PNG", interlace=1)), {"a.png": SHOWS})
    add("lossless WebP", folder(a_webp=pictures.encoded("WEBP", lossless=True)), {"a.webp": SHOWS})
    still = [Image.fromarray(RGB), Image.fromarray(picture(2))]
    moving = {"save_all": True, "append_images": still[1:]}
    add("animated WebP", folder(a_webp=pictures.encoded("WEBP", still[0], **moving)), {"a.webp": SHOWS})
    add("TIFF of two pages", folder(a_tif=pictures.encoded("TIFF", still[0], **moving)), {"a.tif": SHOWS})
    add("compressed TIFF", folder(a_tif=pictures.encoded("TIFF", compression="tiff_lzw")), {"a.tif": SHOWS})
    add("TIFF of 16 bits a colour", folder(a_tiff=pictures.tiff_16(RGB)), {"a.tiff": SHOWS})
    add("PNG of 16 bits a colour", folder(a_png=pictures.png_16(RGB.astype(np.uint16) * 257)), {"a.png": SHOWS})
    add("PNG of 12 bits in 16", folder(a_png=pictures.png_16(RGB.astype(np.uint16) * 16)), {"a.png": SHOWS})
    add("PNG of 10 bits in 16", folder(a_png=pictures.png_16(RGB.astype(np.uint16) * 4)), {"a.png": SHOWS})
    for turn, upright in ((3, np.rot90(RGB, 2)), (6, np.rot90(RGB, 1)), (8, np.rot90(RGB, -1))):
        turned = pictures.encoded(
            "JPEG", np.ascontiguousarray(upright), exif=exif_of(None, orientation=turn), quality=95
        )
        add(f"EXIF orientation {turn}", folder(a_jpg=turned), {"a.jpg": SHOWS})
    tiny = pictures.encoded("PNG", RGB[:1, :1])
    add("picture of one pixel", folder(a_png=tiny), {"a.png": Right()})
    add("picture of one row", folder(a_png=pictures.encoded("PNG", np.repeat(RGB[:1], 20, axis=1))), {"a.png": Right()})

    def beside(name: str, bad: bytes, said: str, suffix: str = "jpg") -> None:
        """A bad picture between two good ones costs itself alone."""
        add(
            name,
            folder(a_png=1, **{f"b_{suffix}": bad}, c_png=2),
            {"a.png": SHOWS, "c.png": Right(looks=2)},
            refused=1,
            said=(f"b.{suffix}", said),
        )

    beside("empty file", b"", "cannot be decoded (0 bytes)")
    beside("text named jpg", b"<html>404 Not Found</html>", "it is no JPEG")
    beside("JPEG cut off in the middle", pictures.encoded("JPEG")[:900], "cannot be decoded")
    beside("JPEG cut off in its header", pictures.encoded("JPEG")[:20], "header is damaged")
    beside("PNG cut off", pictures.encoded("PNG")[:5000], "cannot be decoded", "png")
    beside("PNG with a broken checksum", _flipped(pictures.encoded("PNG"), 60), "cannot be decoded", "png")
    beside("TIFF cut off", pictures.encoded("TIFF")[:300], "cannot be decoded", "tif")
    beside("WebP cut off", pictures.encoded("WEBP")[:40], "cannot be decoded", "webp")
    beside("float TIFF", pictures.encoded("TIFF", RGB[..., 0].astype(np.float32)), "b.tif", "tif")
    beside("MacOS resource fork", b"\x00\x05\x16\x07" + bytes(60), "it is no JPEG")
    beside("zeros after a crash", bytes(4096), "it is no JPEG")
    beside("PNG of 60000 x 60000 in 69 bytes", pictures.png_header(60000, 60000), "the limit is 100 million", "png")
    beside("PNG above 2^30 pixels", pictures.png_header(2**15 + 1, 2**15 + 1), "the limit is 100 million", "png")
    beside(
        "picture above 179 million pixels", pictures.png_header(13400, 13400), "13400x13400 pixels (180 million)", "png"
    )
    beside("JPEG that says 65500 x 65500", pictures.jpeg_of_size(65500, 65500), "the limit is 100 million")
    beside("TIFF that says 100000 x 100000", pictures.tiff_of_size(10**5, 10**5), "the limit is 100 million", "tif")
    beside("PNG of no pixels", pictures.png_header(0, 10), "0x10 pixels", "png")
    beside("HEIC beside pictures", b"\0\0\0\x18ftypheic", ".heic is not read; convert it to JPEG or PNG", "heic")
    beside("raw photograph beside pictures", b"II*\0", ".dng is not read; convert it to JPEG or PNG", "dng")
    beside("animated GIF beside pictures", pictures.encoded("GIF"), ".gif is not read; convert it", "gif")
    add("HEIC alone", folder(a_heic=b"\0\0\0\x18ftypheic"), said=("holds no image that is read", ".heic is not read"))
    add("only broken pictures", folder(a_jpg=b"x", b_jpg=b"y"), refused=2, said="0 places built: none of the 2 images")
    add(
        "limit set lower",
        lambda at: [*folder(a_png=1, b_png=pictures.encoded("PNG", RGB[:10, :10]))(at), "--max-megapixels", "0.001"],
        {"b.png": Right()},
        refused=1,
        said="96x72 pixels",
    )


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def files_and_folders() -> None:
    """Names, links, pipes and folders."""
    add(
        "photographs without any tags",
        folder(a_jpg=1, b_jpg=2),
        {"a.jpg": NO_PLACE, "b.jpg": NO_PLACE},
        said="no image says where",
    )
    add("names with superscript digits", folder(**{"10²1_jpg": 1, "9_jpg": 2}), {"10²1.jpg": SHOWS, "9.jpg": Right()})
    add("names with digits of other scripts", folder(**{"١٢_jpg": 1}), {"١٢.jpg": SHOWS})
    add("names with blanks, quotes and umlauts", folder(**{"ü 'b\" _jpg": 1}), {"ü 'b\" .jpg": SHOWS})
    add("name with a line break", folder(**{"a\nb_jpg": 1}), {"a\nb.jpg": SHOWS})

    def not_utf8(at: Path) -> list[str]:
        save(at / "in", a_png=1)
        put(at / "in" / os.fsdecode(b"caf\xe9.png"), 2)
        return [str(at / "in")]

    add("name that is no UTF-8", not_utf8, {"a.png": SHOWS}, refused=1, said=(r"caf\xe9.png", "is no UTF-8; rename it"))

    def folder_not_utf8(at: Path) -> list[str]:
        put(at / os.fsdecode(b"stra\xdfe") / "a.png", 1)
        return [str(at / os.fsdecode(b"stra\xdfe"))]

    add("folder whose name is no UTF-8", folder_not_utf8, {"a.png": SHOWS})

    def named_as_picture(at: Path) -> list[str]:
        put(at / "in" / "x.jpg" / "a.png", 1)
        return [str(at / "in")]

    add("folder named x.jpg", named_as_picture, {"x.jpg/a.png": SHOWS})

    def loops(at: Path) -> list[str]:
        put(at / "in" / "a.png", 1)
        (at / "in" / "sub").mkdir()
        (at / "in" / "sub" / "back").symlink_to(at / "in")
        (at / "in" / "self.png").symlink_to(at / "in" / "self.png")
        return [str(at / "in")]

    add("links that lead in a circle", loops, {"a.png": SHOWS}, refused=1, said="self.png cannot be read")

    def linked(at: Path) -> list[str]:
        put(at / "elsewhere" / "a.png", 1)
        (at / "in").mkdir()
        (at / "in" / "sub").symlink_to(at / "elsewhere")
        return [str(at / "in")]

    add("folder that is a link", linked, {"sub/a.png": SHOWS})

    def dangling(at: Path) -> list[str]:
        put(at / "in" / "a.png", 1)
        (at / "in" / "b.png").symlink_to(at / "gone.png")
        return [str(at / "in")]

    add("link to nothing", dangling, {"a.png": SHOWS}, refused=1, said="b.png cannot be read: No such file")

    def pipes(at: Path) -> list[str]:
        put(at / "in" / "a.png", 1)
        os.mkfifo(at / "in" / "b.jpg")
        (at / "in" / "c.jpg").symlink_to("/dev/zero")
        return [str(at / "in")]

    add("pipe and device named jpg", pipes, {"a.png": SHOWS}, refused=2, said="is no ordinary file")
    add("empty folder", lambda at: [str(at)], said="holds no image that is read")
    add("folder that is not there", lambda at: [str(at / "gone")], said="does not exist")
    add(
        "picture in place of a folder",
        lambda at: (save(at, a_jpg=1), [str(at / "a.jpg")])[1],
        said="give the folder that holds it",
    )
    add(
        "video in place of a folder",
        lambda at: (put(at / "a.mp4", b"\0\0\0\x18ftyp"), [str(at / "a.mp4")])[1],
        said="ffmpeg -i a.mp4",
    )
    add(
        "metadata.yaml of something else beside pictures",
        lambda at: (put(at / "in" / "metadata.yaml", b"camera: left\n"), folder(a_png=1)(at))[1],
        {"a.png": SHOWS},
    )


def photographs() -> None:
    """EXIF as cameras, phones and editors write it."""
    whole = Right(geo=GEO, stamp_ns=1_714_979_289 * 10**9)
    plain = tagged(None)
    add(
        "photograph with all tags",
        folder(a_jpg=tagged(without(t17=90.0))),
        {"a.jpg": Right(xyz=(0, 0, 0), yaw_deg=0.0, geo=GEO, looks=1)},
    )
    add(
        "first photograph without GPS",
        folder(a_jpg=plain, b_jpg=tagged(GPS)),
        {"b.jpg": whole},
        refused=1,
        said="a.jpg: no valid EXIF position (it has no GPS tags)",
    )
    add("PNG with EXIF", folder(a_png=photograph(exif_of(GPS), format="PNG")), {"a.png": whole})
    add("WebP with EXIF", folder(a_webp=photograph(exif_of(GPS), format="WEBP")), {"a.webp": whole})
    add("TIFF with EXIF", folder(a_tif=photograph(exif_of(GPS), format="TIFF")), {"a.tif": whole})
    for name, south, west in (
        ("bytes", b"S", b"W"),
        ("lower-case", "s", "w"),
        ("padded by blanks", " S ", "W  "),
        ("padded by zeros", "S\0\0", "W\0"),
        ("whole words", "South", "West"),
    ):
        add(f"hemispheres as {name}", folder(a_jpg=tagged(without(t1=south, t3=west))), {"a.jpg": whole})
    unknown = (
        ("missing", without(1), "latitude says no hemisphere"),
        ("missing in the east", without(3), "longitude says no hemisphere"),
        ("empty", without(t1=""), "latitude says no hemisphere"),
        ("of blanks", without(t3="  "), "longitude says no hemisphere"),
        ("swapped", without(t1="W", t3="S"), "latitude says no hemisphere"),
    )
    for name, gps, said in unknown:
        add(
            f"hemisphere {name}",
            folder(a_jpg=tagged(gps), b_jpg=tagged(GPS)),
            {"b.jpg": whole},
            refused=1,
            said=("a.jpg", said),
        )
    add("every hemisphere missing", folder(a_jpg=tagged(without(1, 3))), refused=1, said=("1 refused", "no hemisphere"))
    zero = {1: "N", 2: [0.0, 0.0, 0.0], 3: "E", 4: [0.0, 0.0, 0.0]}
    add(
        "position (0, 0)",
        folder(a_jpg=tagged(zero), b_jpg=tagged(GPS)),
        {"b.jpg": whole},
        refused=1,
        said="exactly 0, which stands for no fix",
    )
    add("only (0, 0)", folder(a_jpg=tagged(zero)), refused=1, said="stands for no fix")
    north = {**GPS, 1: "N", 3: "E"}
    add("on the equator", folder(a_jpg=tagged({**north, 2: [0.0, 0.0, 0.0]})), {"a.jpg": Right(geo=(0.0, 60.06, 12.5))})
    bad = (
        ("latitude of 95 degrees", without(t2=[95.0, 0.0, 0.0]), "outside [-90, 90]"),
        ("longitude of 200 degrees", without(t4=[200.0, 0.0, 0.0]), "outside [-180, 180]"),
        ("minutes of 75", without(t2=[33.0, 75.0, 0.0]), "is not degrees, minutes and seconds"),
        ("latitude of two numbers", without(t2=[33.0, 30.0]), "is not three numbers"),
        ("seconds 0/0", without(t2=[(33, 1), (30, 1), (0, 0)]), "is not three numbers"),
        ("numbers above 32 bits", without(t2=[(4294967295, 1), 0.0, 0.0]), "a.jpg"),
        ("latitude without longitude", without(4), "no valid EXIF position"),
        ("latitude as text", without(t2="33.5"), "a.jpg"),
    )
    for name, gps, said in bad:
        add(
            f"EXIF {name}",
            folder(a_jpg=tagged(gps), b_jpg=tagged(GPS)),
            {"b.jpg": whole},
            refused=1,
            said=("a.jpg", said),
        )
    flat = Right(geo=(*GEO[:2], None), xyz=(0, 0, None))
    for name, gps in (("missing", without(5, 6)), ("0/0", without(t6=(0, 0))), ("1/0", without(t6=(1, 0)))):
        add(f"altitude {name}", folder(a_jpg=tagged(gps)), {"a.jpg": flat})
    add("altitude with an unknown reference", folder(a_jpg=tagged(without(t5=b"\x09"))), {"a.jpg": flat})
    for reference in (b"\x01", b"\x03"):
        add(
            f"altitude below zero by {reference!r}",
            folder(a_jpg=tagged(without(t5=reference))),
            {"a.jpg": Right(geo=(*GEO[:2], -12.5))},
        )
    add(
        "one altitude of three missing",
        folder(a_jpg=tagged(GPS), b_jpg=tagged(without(6)), c_jpg=tagged(GPS)),
        {
            "a.jpg": Right(xyz=(0, 0, 0)),
            "b.jpg": Right(xyz=(0, 0, None)),
            "c.jpg": Right(xyz=(0, 0, 0)),
        },
    )
    blind = Right(geo=GEO, yaw_deg=None)
    for name, value in (("missing", None), ("as text", "north"), ("0/0", (0, 0))):
        gps = GPS if value is None else without(t17=value)
        add(f"direction {name}", folder(a_jpg=tagged(gps)), {"a.jpg": blind})
    add("direction of 180 degrees", folder(a_jpg=tagged(without(t17=180.0))), {"a.jpg": Right(yaw_deg=-90.0)})
    for name, when in (
        ("of the year 9999", "9999:12:31 23:59:59"),
        ("of zeros", "0000:00:00 00:00:00"),
        ("in another form", "2024-05-06T07:08:09Z"),
        ("before 1970", "1969:01:01 00:00:00"),
        ("missing", None),
    ):
        add(f"time {name}", folder(a_jpg=tagged(GPS, when=when)), {"a.jpg": Right(geo=GEO, stamp_ns=None)})
    add("time padded by zeros", folder(a_jpg=tagged(GPS, when="2024:05:06 07:08:09\0\0")), {"a.jpg": whole})
    broken = bytearray(tagged(GPS))
    at = broken.index(b"Exif\0\0") + 10
    broken[at : at + 4] = b"\xff\xff\xff\x7f"
    add(
        "EXIF whose directory lies outside",
        folder(a_jpg=bytes(broken), b_jpg=tagged(GPS)),
        {"b.jpg": whole},
        refused=1,
        said="a.jpg",
    )
    add(
        "huge PNG beside photographs",
        folder(a_png=pictures.png_header(40000, 40000), b_jpg=tagged(GPS)),
        {"b.jpg": whole},
        refused=1,
        said="a.png",
    )
    add(
        "photographs read as plain",
        lambda at: [*folder(a_jpg=tagged(GPS), b_jpg=plain)(at), "--kind", "plain"],
        {"a.jpg": NO_PLACE, "b.jpg": NO_PLACE},
    )
    add(
        "plain pictures read as EXIF",
        lambda at: [*folder(a_jpg=1, b_jpg=2)(at), "--kind", "exif"],
        refused=2,
        said="2 refused",
    )


def names() -> None:
    """UTM coordinates in names."""
    at_origin = Right(xyz=(0, 0, None), yaw_deg=ANY)
    add(
        "UTM names",
        folder(**{"@500000.0@0.0@32@N@@@@@0@_jpg": 1}),
        {"@500000.0@0.0@32@N@@@@@0@.jpg": Right(geo=(0.0, 9.0, None), yaw_deg=90.0, looks=1)},
    )
    add(
        "UTM name with heading nan",
        folder(**{"@500000@0@32@N@@@@@nan@_jpg": 1}),
        {"@500000@0@32@N@@@@@nan@.jpg": Right(geo=(0.0, 9.0, None), yaw_deg=None)},
    )
    good = "@550000@4180000@32@S@@@@@@"
    for name, bad in (
        ("nan as easting", "@nan@0@32@N@"),
        ("an underscore in a number", "@550_000@4180000@32@S@"),
        ("zone 99", "@550000@4180000@99@S@"),
        ("band O", "@550000@4180000@32@O@"),
        ("a heading in words", "@550000@4180000@32@S@@@@@north@"),
        ("words for coordinates", "@somewhere@0@32@N@"),
        ("infinity", "@inf@0@32@N@"),
        ("superscript zone", "@550000@4180000@3²@S@"),
        ("exactly (0, 0)", "@1@1@@@0@0@"),
        ("half a position", "@1@1@@@50.1@@"),
    ):
        add(
            f"UTM name with {name}",
            folder(**{f"{bad}_jpg": 2, f"{good}_jpg": 1}),
            {f"{good}.jpg": SHOWS},
            refused=1,
            said=("no valid @utm_east@utm_north@ name",),
        )
    add(
        "local metres in names",
        folder(**{"@10@20@_jpg": 1, "@13@24@_jpg": 2}),
        {"@10@20@.jpg": at_origin, "@13@24@.jpg": Right(xyz=(3, 4, None))},
    )
    add(
        "a cover picture among UTM names",
        folder(**{f"{good}_jpg": 1, "cover_jpg": 2}),
        {f"{good}.jpg": SHOWS},
        refused=1,
        said="cover.jpg",
    )


def tables() -> None:
    """CSV as spreadsheets, pandas and loggers write it."""
    two = {"a.png": Right(xyz=(1, 2, None), yaw_deg=None, looks=1), "b.png": Right(xyz=(3, 4, None), looks=2)}
    geo = {"a.png": Right(geo=(50.1, 8.7, None), looks=1), "b.png": Right(geo=(50.2, 8.8, None))}
    body = "a.png,1,2\nb.png,3,4"
    add("CSV", csv(f"image,x,y\n{body}"), two)
    add("CSV with its mark", csv(f"\ufeffimage,x,y\n{body}"), two)
    add("CSV with CRLF", csv(f"image,x,y\r\n{body}\r\n".replace("\nb", "\r\nb").encode()), two)
    add("CSV with CR alone", csv(f"image,x,y\r{body}\r".replace("\n", "\r").encode()), two)
    add("CSV in UTF-16", csv(f"image,x,y\n{body}\n".encode("utf-16")), two)
    add("CSV with quotes", csv('"image","x","y"\n"a.png","1","2"\n"b.png","3","4"'), two)
    add("CSV with blanks", csv("image , x, y\n a.png, 1 ,2\nb.png ,3, 4"), two)
    add("CSV with semicolons", csv("image;x;y\na.png;1;2\nb.png;3;4"), two)
    add(
        "CSV with decimal commas",
        csv("image;x;y\na.png;1,5;2,25\nb.png;3;4"),
        {"a.png": Right(xyz=(1.5, 2.25, None)), "b.png": Right()},
    )
    add("tabs", csv("image\tx\ty\na.png\t1\t2\nb.png\t3\t4", name="poses.tsv"), two)
    add("CSV with empty lines", csv("image,x,y\n\na.png,1,2\n,,\nb.png,3,4\n\n"), two)
    add("CSV named txt", csv(f"image,x,y\n{body}", name="poses.txt"), two)
    add("header in capitals", csv(f"IMAGE,X,Y\n{body}"), two)
    for image in ("filename", "file", "Image Name", "SourceFile", "#filename"):
        add(f"images under {image!r}", csv(f"{image},x,y\n{body}"), two)
    for x, y in (("tx", "ty"), ("pos_x", "pos_y"), ("x [m]", "y [m]"), ("east", "north"), ("Position X", "Position Y")):
        add(f"positions under {x!r}", csv(f"image,{x},{y}\n{body}"), two)
    degrees = "a.png,50.1,8.7\nb.png,50.2,8.8"
    for lat, lon in (
        ("lat", "lon"),
        ("Latitude", "Longitude"),
        ("lat", "lng"),
        ("latitude (deg)", "longitude (deg)"),
        ("GPSLatitude", "GPSLongitude"),
    ):
        add(f"degrees under {lat!r}, {lon!r}", csv(f"image,{lat},{lon}\n{degrees}"), geo)
    add(
        "altitude under 'alt'",
        csv("image,lat,lon,alt\na.png,50.1,8.7,120\nb.png,50.1,8.7,nan"),
        {"a.png": Right(geo=(50.1, 8.7, 120.0)), "b.png": Right(geo=(50.1, 8.7, None))},
    )
    add(
        "a quaternion",
        csv("image,x,y,z,qx,qy,qz,qw\na.png,1,2,3,0,0,0.70710678,0.70710678"),
        {"a.png": Right(xyz=(1, 2, 3), yaw_deg=90.0)},
    )
    add(
        "yaw_deg",
        csv("image,x,y,yaw_deg\na.png,1,2,90\nb.png,1,2,nan"),
        {"a.png": Right(yaw_deg=90.0), "b.png": Right(yaw_deg=None)},
    )
    add("yaw_rad", csv("image,x,y,yaw_rad\na.png,1,2,1.5707963267948966"), {"a.png": Right(yaw_deg=90.0)})
    add(
        "heading_deg beside degrees",
        csv("image,lat,lon,heading_deg\na.png,50.1,8.7,180\nb.png,50.1,8.7,nan"),
        {"a.png": Right(yaw_deg=-90.0), "b.png": Right(yaw_deg=None)},
    )
    add(
        "heading_deg beside east and north",
        csv("image,east,north,heading_deg\na.png,1,2,0"),
        {"a.png": Right(xyz=(1, 2, None), yaw_deg=90.0)},
    )
    add(
        "heading_deg beside x and y",
        csv("image,x,y,heading_deg\na.png,1,2,0"),
        {"a.png": Right(yaw_deg=None)},
        said="heading_deg of poses.csv is not used",
    )
    add("an id column in front", csv("id,image,x,y\n7,a.png,1,2\n8,b.png,3,4"), two, said="not read: id")
    add(
        "cells of pandas",
        csv("image,x,y\na.png,1,2\nb.png,NaN,NaN"),
        {"a.png": Right(xyz=(1, 2, None)), "b.png": NO_PLACE},
    )
    add("images alone", csv("image\na.png\nb.png"), {"a.png": NO_PLACE, "b.png": NO_PLACE}, said="no image says where")
    add(
        "lat beside latitude",
        csv("image,latitude,longitude,lat\na.png,50.1,8.7,1"),
        {"a.png": Right(geo=(50.1, 8.7, None))},
        said="not read: lat",
    )
    add("paths of Windows", csv("image,x,y\nsub\\a.png,1,2", images="sub/a"), {"sub/a.png": Right(xyz=(1, 2, None))})
    add("paths from the table's folder", csv("image,x,y\nin/a.png,1,2", images="a"), {"a.png": Right(xyz=(1, 2, None))})
    add(
        "images that the table does not name",
        csv("image,x,y\na.png,1,2"),
        {"a.png": SHOWS},
        said="1 images of the folder are not in poses.csv, the first is b.png",
    )
    stamp = 1_700_000_000_123_456_789
    seconds = Right(stamp_ns=stamp)
    add(
        "stamps in seconds",
        csv("image,stamp\na.png,1700000000.123456789\nb.png,"),
        {"a.png": seconds, "b.png": Right(stamp_ns=None)},
    )
    add(
        "stamps in nanoseconds",
        csv(f"image,timestamp\na.png,{stamp}"),
        {"a.png": seconds},
        said="taken for nanoseconds",
    )
    add(
        "stamps in microseconds",
        csv(f"image,timestamp\na.png,{stamp // 1000}"),
        {"a.png": Right(stamp_ns=stamp // 1000 * 1000)},
        said="taken for microseconds",
    )
    add(
        "stamps in milliseconds",
        csv(f"image,time\na.png,{stamp // 10**6}"),
        {"a.png": Right(stamp_ns=stamp // 10**6 * 10**6)},
        said="taken for milliseconds",
    )
    add("EuRoC's header", csv("#timestamp [ns],filename\n5000000000,a.png"), {"a.png": Right(stamp_ns=5 * 10**9)})
    add(
        "stamps as dates",
        csv("image,time\na.png,2024-05-06T07:08:09Z\nb.png,2024-05-06 09:08:09+02:00"),
        {"a.png": Right(stamp_ns=1_714_979_289 * 10**9), "b.png": Right(stamp_ns=1_714_979_289 * 10**9)},
    )

    def row(name: str, header: str, bad: str, said: str) -> None:
        """A bad row between good ones costs itself alone."""
        cells = header.count(",") - 2
        good = "a.png,1,2" + "," * cells
        add(
            name,
            csv(f"{header}\n{good}\n{bad}", images="a b"),
            {"a.png": SHOWS},
            refused=1,
            said=("poses.csv, line 3", said),
        )

    row("row whose image is missing", "image,x,y", "gone.png,1,2", "does not exist")
    row("row without an image", "image,x,y", ",1,2", "no image is named")
    row("row given twice", "image,x,y", "a.png,1,2", "is in line 2 already")
    row("row with half a position", "image,x,y", "b.png,1,", "belong together, y is unknown")
    row("row with x infinite", "image,x,y", "b.png,inf,2", "is no number")
    row("row with x too large", "image,x,y", "b.png,1e999,2", "is too large")
    row("row with words", "image,x,y", "b.png,here,there", "is no number")
    row("row with Python's number", "image,x,y", "b.png,1_000,2", "is no number")
    row("row with a zero quaternion", "image,x,y,qx,qy,qz,qw", "b.png,1,2,0,0,0,0", "zero quaternion")
    row("row with half a quaternion", "image,x,y,qx,qy,qz,qw", "b.png,1,2,0,0,,1", "qz is unknown")
    row("row with a stamp in words", "image,x,y,stamp", "b.png,1,2,noon", "is no number")
    row("row with a stamp of 30 digits", "image,x,y,stamp", f"b.png,1,2,{'9' * 30}", "beyond the year 2262")
    row("row with a negative stamp", "image,x,y,stamp", "b.png,1,2,-5", "is negative")
    row("row with an image outside of the folder", "image,x,y", "../poses.csv,1,2", "outside of")
    add(
        "latitude of 95 in a row",
        csv("image,lat,lon\na.png,50.1,8.7\nb.png,95,8.7"),
        {"a.png": SHOWS},
        refused=1,
        said="latitude 95",
    )
    add(
        "(0, 0) in a row",
        csv("image,lat,lon\na.png,50.1,8.7\nb.png,0,0"),
        {"a.png": SHOWS},
        refused=1,
        said="stands for no fix",
    )
    add(
        "UTM under east and north",
        csv("image,east,north\na.png,1,2\nb.png,550000,4180000"),
        {"a.png": SHOWS},
        refused=1,
        said="is no local frame",
    )

    def refused(name: str, text: str | bytes, said: str) -> None:
        add(name, csv(text), said=("poses.csv", said))

    refused("table without an image column", "frame,x,y\n1,2,3", "has no column 'image'")
    refused("x without y", "image,x\na.png,1", "column 'x' but none 'y'")
    refused("lat without lon", "image,lat\na.png,1", "'latitude' but none 'longitude'")
    refused("easting and northing", "image,easting,northing\na.png,1,2", "column 'easting' is UTM")
    refused("utm_x and utm_y", "image,utm_x,utm_y\na.png,1,2", "column 'utm_x' is UTM")
    refused("yaw without a unit", "image,x,y,yaw\na.png,1,2,3", "column 'yaw' has no unit; name it yaw_deg or yaw_rad")
    refused("heading without a unit", "image,lat,lon,heading\na.png,1,2,3", "column 'heading' has no unit")
    refused("columns that look like a position", "image,gps_n,gps_e\na.png,1,2", "column 'gps_n' is not known")
    refused("a column given twice", "image,lat,lat,lon\na.png,1,2,3", "gives latitude twice")
    refused("x, y and east, north", "image,x,y,east,north\na.png,1,2,3,4", "gives both")
    refused("a header alone", "image,x,y\n", "has a header and no rows")
    refused("an empty table", b"", "is empty")
    refused("a table of blanks", b"\n \n\n", "is empty")
    refused("Latin-1", "image,note\na.png,stra\xdfe\n".encode("latin-1"), "save it as UTF-8")
    refused("a picture as a table", pictures.encoded("PNG"), "save it as UTF-8")
    add("every row refused", csv("image,x,y\nc.png,1,2\nd.png,1,2"), refused=2, said="2 refused")
    add(
        "a table that is not there",
        lambda at: [*folder(a_png=1)(at), "--table", str(at / "gone.csv")],
        said="gone.csv cannot be read",
    )
    add("a folder as a table", lambda at: [*folder(a_png=1)(at), "--table", str(at)], said="cannot be read")


def trajectories() -> None:
    """TUM trajectories with images named by their stamp."""
    half = Right(xyz=(0.5, 0, 0), yaw_deg=0.0)
    good = "1.0 0 0 0 0 0 0 1\n1.5 1 0 0 0 0 0 1"

    def tum(text: str, images: str = "1.25", **options: str) -> object:
        return csv(
            text,
            *(word for pair in options.items() for word in (f"--{pair[0]}", pair[1])),
            images=images,
            name="traj.txt",
        )

    add("TUM", tum(good), {"1.25.png": half})
    add("TUM with comments", tum(f"# stamp tx ty tz qx qy qz qw\n{good} # end"), {"1.25.png": half})
    add("TUM with its mark", csv(f"\ufeff{good}\n".encode(), images="1.25", name="traj.txt"), {"1.25.png": half})
    add("TUM with tabs", tum(good.replace(" ", "\t")), {"1.25.png": half})
    add("TUM that runs backwards", tum("1.5 1 0 0 0 0 0 1\n1.0 0 0 0 0 0 0 1"), {"1.25.png": half})
    add("TUM with a stamp twice", tum(f"{good}\n1.5 1 0 0 0 0 0 1"), {"1.25.png": half})
    add(
        "TUM with a header",
        tum(f"timestamp tx ty tz qx qy qz qw\n{good}"),
        {"1.25.png": half},
        said="pose refused: traj.txt, line 1",
    )
    add("TUM with a line cut off", tum(f"{good}\n1.7 2 0"), {"1.25.png": half}, said="line 3")
    add("TUM with nan", tum(f"{good}\n1.7 nan 0 0 0 0 0 1"), {"1.25.png": half}, said="line 3")
    add("TUM with a zero quaternion", tum(f"{good}\n1.7 1 0 0 0 0 0 0"), {"1.25.png": half}, said="line 3")
    nanoseconds = "1700000000000000000 0 0 0 0 0 0 1\n1700000000500000000 1 0 0 0 0 0 1"
    add(
        "TUM and names in nanoseconds",
        tum(nanoseconds, "1700000000250000000"),
        {"1700000000250000000.png": half},
        said="taken for stamps in nanoseconds",
    )
    add(
        "an image outside of the trajectory",
        tum(good, "1.25 7.0"),
        {"1.25.png": half},
        refused=1,
        said="7.0.png: time 7.000 s is outside the trajectory",
    )
    add(
        "an image that has no stamp",
        tum(good, "1.25 cover"),
        {"1.25.png": half},
        refused=1,
        said="cover.png: its name is no stamp",
    )
    add(
        "an image named with an underscore",
        tum(good, "1.25 1700_0001"),
        {"1.25.png": half},
        refused=1,
        said="1700_0001.png: its name is no stamp",
    )
    add(
        "an image in a gap",
        tum(f"{good}\n9.0 1 0 0 0 0 0 1", "1.25 5"),
        {"1.25.png": half},
        refused=1,
        said="5.png: time 5.000 s lies in a gap",
    )
    add("clocks apart by hours", tum(good, "7201.5"), refused=1, said="the clocks of images and poses differ")
    add("KITTI's twelve numbers", tum("1 0 0 0 0 1 0 0 0 0 1 0"), said="wanted `stamp x y z qx qy qz qw`")
    add("an empty trajectory", tum("# nothing"), said="the trajectory is empty")


pictures_of_every_kind()
files_and_folders()
photographs()
names()
tables()
trajectories()

__all__ = ["TABLE"]
