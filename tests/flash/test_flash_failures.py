"""What a person reads when a tool fails in one of its ways. The tools' words are their own: what they print here without
hardware, what stands in their sources, and what their users reported."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from desk import NUCLEO
from workbench import OLD, FakeBoard, Workbench

from tinyfl.building import boards
from tinyfl.flash import run
from tinyfl.flash.run import FAILED, FLASHED, UNVERIFIED, Job
from tinyfl.flash.targets import FlashSelection

RULE = (
    'SUBSYSTEM=="usb|hidraw", ATTRS{{idVendor}}=="{}", ATTRS{{idProduct}}=="{}", MODE="0660", GROUP="plugdev", TAG+="uaccess"'
)
INSTALL = (
    "tinyfl doctor --udev-rules | sudo tee /etc/udev/rules.d/70-tinyfl.rules && sudo udevadm control --reload && sudo udevadm "
    "trigger"
)
PLUG = "Check cable and power, plug the board in again, and flash again."

# Each: the board, the method, what the tool says, and the first lines of what the person then reads.
FAILURES = {
    "pyocd: no probe": (
        "microbit-v2", "pyocd",
        "No connected debug probe matches unique ID '9904'\n0000590 E No target device available [load_cmd]",
        "pyocd finds no debug probe 9904. Check that the board is plugged in with a cable that carries data; `tinyfl devices` "
        "lists the connected boards, `tinyfl doctor` checks permissions.",
    ),
    "pyocd: two probes": (
        "microbit-v2", "pyocd", "More than one debug probe matches unique ID '99':\nBBC | 9904\nBBC | 9905",
        "more than one probe or board matches. Select one with --probe ID; `tinyfl devices` lists them.",
    ),
    "pyocd: no permission": (
        "microbit-v2", "pyocd",
        "0000344 W [Errno 13] Access denied (insufficient permissions) while trying to interrogate a USB device (VID=0d28 "
        "PID=0204)."
        " This can probably be remedied with a udev rule. [pyusb_v2_backend]\nNo connected debug probes",
        "no permission to use the USB device 0d28:0204. Install the udev rules for all boards, and plug this one in again:\n"
        f"  {INSTALL}\nor write only this board's rule into that file:\n  {RULE.format('0d28', '0204')}",
    ),
    "pyocd: in use": (
        "microbit-v2", "pyocd",
        "0000789 C Unable to open CMSIS-DAP probe: Unable to claim interface for probe 9904 [__main__]",
        "the probe 9904 is in use by another program, such as a debugger or an IDE. Close it, and flash again.",
    ),
    "pyocd: locked": (
        "microbit-v2", "pyocd",
        "0000883 W NRF52833 APPROTECT enabled: not automatically unlocking [target_nRF52]\n"
        "0000901 C No cores were discovered! [__main__]",
        "the chip is locked (APPROTECT), and nothing was written. Unlocking it erases all of its flash, models and weights "
        "included:\n  pyocd erase --mass --target nrf52833 --uid 9904\nThen flash again.",
    ),
    "pyocd: wrong target": (
        "microbit-v2", "pyocd", "0001021 C no memory region defined for address 0x00000000 [__main__]",
        "according to the tool, the chip is not the nRF52833 of microbit-v2. Check which board is connected to the probe "
        "9904, and give it with --board.",
    ),
    "pyocd: too old": (
        "microbit-v2", "pyocd",
        "0000500 C Target type nrf52833 not recognized. Use 'pyocd list --targets' to see currently available target types.",
        "this pyocd does not know the chip nrf52833. pip install 'tinyfl[flash]'",
    ),
    "pyocd: unplugged": (
        "microbit-v2", "pyocd",
        "[======                ]  31%\n0003100 C Error: [Errno 19] No such device (it may have been disconnected) [__main__]",
        f"the connection to the board was lost. {PLUG}",
    ),
    "pyocd: no contact": (
        "microbit-v2", "pyocd",
        "0000777 C SWD/JTAG communication failure (No ACK); check USB cable, reduce debugger clock [__main__]",
        "the probe 9904 does not reach the chip. Check that the board has power and that SWDIO, SWCLK and ground are "
        "connected; "
        "then hold its reset button while flashing starts, and release it.",
    ),
    "pyocd: flash does not take it": (
        "microbit-v2", "pyocd", "0004100 C flash program page failure (address 0x00001000; result code 0x67) [__main__]",
        "the chip rejects the data (flash program page failure). Check that it is the nRF52833 of microbit-v2. If "
        "so, flash again, holding its reset button at the start.",
    ),
    "openocd: no probe": (
        "nucleo-f401re", "openocd",
        "Info : clock speed 2000 kHz\nError: open failed\nin procedure 'program'\n** OpenOCD init failed **\nshutdown "
        "command invoked",
        "openocd finds no debug probe 9904. Check that the board is plugged in with a cable that carries data; `tinyfl "
        "devices` "
        "lists the connected boards, `tinyfl doctor` checks permissions.",
    ),
    "openocd: another probe": (
        "pico", "openocd", "Error: unable to find a matching CMSIS-DAP device\n** OpenOCD init failed **",
        "openocd finds no debug probe 9904. Check that the board is plugged in with a cable that carries data; `tinyfl "
        "devices` "
        "lists the connected boards, `tinyfl doctor` checks permissions.",
    ),
    "openocd: no permission": (
        "nucleo-f401re", "openocd", "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS\nError: open failed",
        "no permission to use the USB device 0483:374b. Install the udev rules for all boards, and plug this one in again:\n"
        f"  {INSTALL}\nor write only this board's rule into that file:\n  {RULE.format('0483', '374b')}",
    ),
    "openocd: in use": (
        "nucleo-f401re", "openocd", "Error: libusb_claim_interface() failed with LIBUSB_ERROR_BUSY\nError: open failed",
        "the probe 9904 is in use by another program, such as a debugger or an IDE. Close it, and flash again.",
    ),
    "openocd: locked": (
        "nucleo-f401re", "openocd",
        "Info : device id = 0x10006433\nInfo : flash size = 512 kbytes\nError: stm32x device protected\n"
        "Error: failed erasing sectors 0 to 2\n** Programming Failed **",
        "the chip is locked (read-out protection), and nothing was written. Unlocking it erases all of its flash, models and "
        "weights included:\n  openocd -f board/st_nucleo_f4.cfg -c 'adapter serial 9904' -c 'init; reset halt; stm32f2x "
        "unlock 0; "
        "reset halt; exit'\nThen flash again.",
    ),
    "openocd: protected": (
        "pico", "openocd", "** Programming Started **\nError: failed erasing sectors 0 to 2\n** Programming Failed **",
        "erasing the flash failed. Either power is weak, or the chip is write-protected; removing the protection "
        "erases all of its flash, models and weights included:\n  see the chip's manual; tinyfl has no command for this "
        "method\nThen flash again.",
    ),
    "openocd: wrong target": (
        "nucleo-f401re", "openocd", "Warn : UNEXPECTED idcode: 0x0bc11477\nError: expected 1 of 1: 0x2ba01477",
        "according to the tool, the chip is not the STM32F401RE of nucleo-f401re. Check which board is connected to the "
        "probe 9904, and give it with --board.",
    ),
    "openocd: verify": (
        "nucleo-f401re", "openocd",
        "** Verify Started **\nError: checksum mismatch - attempting binary compare\ndiff 0 address 0x08000000. Was 0xff "
        "instead "
        "of 0x00\n** Verify Failed **",
        "the data read back differ from those written. Flash again; if that repeats, the flash is worn out or power is weak.",
    ),
    "openocd: unplugged": (
        "pico", "openocd", "** Programming Started **\nError: CMSIS-DAP command CMD_INFO failed.",
        f"the connection to the board was lost. {PLUG}",
    ),
    "openocd: no power": (
        "nucleo-f401re", "openocd", "Error: init mode failed (unable to connect to the target)\n** OpenOCD init failed **",
        "the probe 9904 does not reach the chip. Check that the board has power and that SWDIO, SWCLK and ground are "
        "connected; "
        "then hold its reset button while flashing starts, and release it.",
    ),
    "openocd: too old": (
        "nucleo-f401re", "openocd", "embedded:startup.tcl:28: Error: Can't find board/st_nucleo_f4.cfg\nin procedure 'script'",
        "OpenOCD on this machine is older than 0.12, or lacks board/st_nucleo_f4.cfg. Install OpenOCD 0.12 or later.",
    ),
    "dfu-util: no device": (
        "stm32f405", "dfu-util",
        "dfu-util 0.11\n\nCopyright 2005-2009 Weston Schmidt, Harald Welte and OpenMoko Inc.\ndfu-util: Warning: Invalid DFU "
        "suffix signature\ndfu-util: No DFU capable USB device available",
        "no board is in DFU mode. Hold BOOT (or BOOT0) of stm32f405 while you press and release reset, and flash again.",
    ),
    "dfu-util: two": (
        "stm32f405", "dfu-util",
        "dfu-util: More than one DFU capable USB device found! Try `--list' and specify the serial number or disconnect "
        "all but one",
        "more than one probe or board matches. Select one with --probe ID; `tinyfl devices` lists them.",
    ),
    "dfu-util: no permission": (
        "stm32f405", "dfu-util",
        "dfu-util: Cannot open DFU device 0483:df11 found on devnum 3 (LIBUSB_ERROR_ACCESS)\ndfu-util: No DFU capable USB "
        "device "
        "available",
        "no permission to use the USB device 0483:df11. Install the udev rules for all boards, and plug this one in again:\n"
        f"  {INSTALL}\nor write only this board's rule into that file:\n  {RULE.format('0483', 'df11')}",
    ),
    "dfu-util: locked": (
        "stm32f405", "dfu-util", "Erase   \t[                         ]   0%            0 bytes\nERASE_PAGE not correctly "
        "executed",
        "erasing the flash failed. Either power is weak, or the chip is write-protected; removing the protection "
        "erases all of its flash, models and weights included:\n  dfu-util --alt 0 --dfuse-address "
        "0x08000000:unprotect:force\nThen flash again.",
    ),
    "dfu-util: wrong target": (
        "stm32f405", "dfu-util", "dfu-util: Last page at 0x08010d5f is not writeable",
        "according to the tool, the chip is not the STM32F405RG of stm32f405. Check which board is connected to the probe "
        "9904, and give it with --board.",
    ),
    "dfu-util: unplugged": (
        "stm32f405", "dfu-util", 'Download\t[=======     ]  31%\nError during special command "SET_ADDRESS" get_status',
        f"the connection to the board was lost. {PLUG}",
    ),
    "bossac: no bootloader": (
        "nano-33-ble", "bossac", "No device found on /dev/ttyACM0",
        "no bootloader answers there. Press the reset button of nano-33-ble twice, quickly: an LED pulses while the bootloader "
        "runs. Then flash again.",
    ),
    "bossac: Debian's": (
        "nano-33-ble", "bossac", "Device unsupported",
        "this bossac does not know the nRF52840. Install Arduino's, which comes with Arduino's board package for nano-33-ble "
        "(Debian's bossa-cli supports Atmel's chips only), or use another --method.",
    ),
    "bossac: unplugged": ("nano-33-ble", "bossac", "SAM-BA operation failed", f"the connection to the board was lost. {PLUG}"),
    "bossac: verify": (
        "nano-33-ble", "bossac", "Verify failed\nPage errors: 3\nByte errors: 517",
        "the data read back differ from those written. Flash again; if that repeats, the flash is worn out or power is weak.",
    ),
    "unknown": ("nucleo-f401re", "openocd", "one\ntwo\nthree\nfour\nGremlins in the works", "openocd failed."),
}  # fmt: skip

USB = {"microbit-v2": "0d28:0204", "pico": "2e8a:000c", "stm32f405": "0483:df11", "nano-33-ble": "2341:005a"}


def plugged(workbench: Workbench, name: str) -> FlashSelection:
    """Plugs in a board that can be flashed, with the serial number 9904."""
    usb = USB.get(name, NUCLEO)
    workbench.plug("ttyACM0", FakeBoard(b"\7", name) if usb not in ("0483:df11",) else None, usb=usb, serial="9904")
    return FlashSelection((boards.load(name),), probes=("9904",))


@pytest.mark.parametrize("failure", FAILURES)
def test_a_tool_that_fails_is_explained(workbench: Workbench, failure: str) -> None:
    name, method, says, explained = FAILURES[failure]
    workbench.tool(method).does(says, code=1)
    (done,) = run.flash(plugged(workbench, name), Job(method=method))
    log = workbench.folder / "cache" / name / f"flash-{done.id}.log"
    meaning, _, rest = done.detail.partition(f"\n  last lines of {method}:\n")
    assert (done.what, done.method, meaning) == (FAILED, method, explained)
    *lines, where = rest.splitlines()
    assert where == f"  full log: {log}" and log.read_text().strip() == says.strip()
    assert lines[-1].strip() in says and 1 <= len(lines) <= 4
    assert done.retry == f"tinyfl flash --board {name} --probe 9904 --method {method}"


def test_a_board_that_leaves_its_bootloader_at_once_is_no_failure(workbench: Workbench) -> None:
    workbench.tool("dfu-util").does("File downloaded successfully\ndfu-util: Error during download get_status", code=74)
    (done,) = run.flash(plugged(workbench, "stm32f405"), Job(method="dfu-util"))
    assert done.what == UNVERIFIED


def test_a_tool_that_hangs_is_ended(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyfl.flash.writing.TOOL_SECONDS", 0.5)
    openocd = workbench.tool("openocd")
    openocd.does("Info : clock speed 2000 kHz", sleeps=60)
    (done,) = run.flash(plugged(workbench, "nucleo-f401re"))
    assert done.what == FAILED
    assert done.detail.startswith(
        "openocd did not finish within 0.5 s and was stopped. Plug the board in again, and flash again; or run it by hand, to "
        "see where it hangs:\n  openocd -f board/st_nucleo_f4.cfg -c 'adapter serial 9904'"
    )


def test_what_is_not_there_is_said_for_each_method(workbench: Workbench) -> None:
    workbench.plug("ttyACM0", FakeBoard(), serial="9904")
    (done,) = run.flash(FlashSelection((boards.load("microbit-v2"),)))
    assert done.detail == (
        "no flash method is available:\n  copy: no drive called MICROBIT is mounted. Plug the board in.\n"
        "  pyocd: pyocd is not installed. Install it: pip install 'tinyfl[flash]'"
    )


def test_a_sketch_is_stopped_by_a_touch_at_1200_baud(workbench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[tuple[str, int]] = []
    board = FakeBoard(b"\7", "nano-33-ble", OLD)
    url = workbench.plug("ttyACM0", board, usb="2341:805a", serial="A504")

    class Touched:
        def __init__(self, url: str, baud: int) -> None:
            touched.append((url, baud))

        def close(self) -> None:
            workbench.unplug("ttyACM0")
            workbench.plug("ttyACM7", board, usb="2341:005a", serial="A504")

    monkeypatch.setattr("tinyfl.flash.writing.serial", SimpleNamespace(Serial=Touched))
    bossac = workbench.tool("bossac")
    bossac.writes(lambda argv: 0)
    asked = FlashSelection((boards.load("nano-33-ble"),), ports=(url,))
    planned = run.commands(asked)
    assert planned[2] == f"stty -F {url} 1200"
    (done,) = run.flash(asked)
    assert touched == [(url, 1200)] and done.what == UNVERIFIED
    ((_, port, *rest),) = bossac.calls
    assert port == f"--port={url[:-1]}7" and rest[:-1] == ["-U", "-e", "-w", "-v", "-R"]


def test_the_verdict_on_the_drive_is_read(workbench: Workbench) -> None:
    board = FakeBoard()
    workbench.plug("ttyACM0", board, serial="9904", drive="MICROBIT")
    workbench.on_copy = lambda path: workbench.remount(
        "MICROBIT", holds={"FAIL.TXT": "error: The interface firmware FAILED to reset/halt the target MCU\r\ntype: target\r\n"}
    )
    asked = FlashSelection((boards.load("microbit-v2"),))
    (done,) = run.flash(asked)
    assert done.what == FAILED
    assert done.detail == (
        "the board's drive refused the firmware: the probe cannot stop the chip. Unplug the board, wait, plug it in, and flash "
        f"again.\n  {workbench.folder / 'media/MICROBIT/FAIL.TXT'}: error: The interface firmware FAILED to "
        f"reset/halt the "
        "target MCU type: target"
    )

    def taken(path: Path) -> None:
        found = re.search(rb"\d\.\d\.\d\+\w{8}", path.read_bytes())
        assert found
        board.firmware = found[0].decode()
        workbench.remount("MICROBIT")

    workbench.on_copy = taken  # the FAIL.TXT of the first try is still there
    (again,) = run.flash(asked)
    assert again.what == FLASHED
