"""The module NonLocalMeans for 3D Slicer: denoises a volume with the command line of nlmeans.

What needs no Slicer is in NonLocalMeansLib.runs. This file connects it with the window and with the scene.
"""

from __future__ import annotations

import shutil

import ctk
import qt
import slicer
from NonLocalMeansLib.runs import METHODS, NOISES, Choices, Run, RunError
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

PROGRAM_SETTING = "NonLocalMeans/program"
"""Where Slicer keeps the path of the program nlmeans."""

INTERVAL = 100
"""Milliseconds between two looks at a run."""


class NonLocalMeans(ScriptedLoadableModule):
    """What Slicer shows of the module."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "Non-local means"
        parent.categories = ["Filtering.Denoising"]
        parent.dependencies = []
        parent.contributors = ["the nlmeans authors"]
        parent.helpText = "Denoises a volume by non-local means. The noise is found in the volume unless it is stated."
        parent.acknowledgementText = "Licence: Apache-2.0."


class NonLocalMeansLogic(ScriptedLoadableModuleLogic):
    """Moves volumes between the scene and a run."""

    def start(self, program, volume, choices):
        """Write a volume for a run, start the run and return it. Raises RunError without the program."""
        run = Run([program], choices, slicer.util.startupEnvironment())
        try:
            slicer.util.exportNode(volume, str(run.source))  # saveNode would change where the volume is stored
            if not run.source.is_file():
                raise RunError(f"{volume.GetName()} cannot be written to {run.source}")
            run.start()
        except BaseException:
            run.close()
            raise
        return run

    def put(self, result, volume, output):
        """Read the file with a result into the output volume, which gets the geometry of the input volume."""
        loaded = slicer.util.loadVolume(str(result), {"show": False})
        try:
            output.CopyOrientation(volume)
            output.SetAndObserveImageData(loaded.GetImageData())
            output.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
            output.CreateDefaultDisplayNodes()
        finally:
            slicer.mrmlScene.RemoveNode(loaded)


class NonLocalMeansWidget(ScriptedLoadableModuleWidget):
    """The form, and the run that it has started."""

    def setup(self):
        super().setup()
        self.logic = NonLocalMeansLogic()
        self.run = None
        form = self.addSection("Volumes")
        self.input = self.addVolume(form, "Input:", "Volume to denoise")
        self.output = self.addVolume(form, "Output:", "Volume for the result", new=True)

        form = self.addSection("Denoising")
        self.method = self.addChoice(form, "Method:", METHODS)
        self.noise = self.addChoice(form, "Noise:", NOISES)
        self.strength = self.addNumber(form, "Strength:", 0.05, 5.0, 1.0)
        self.strength.toolTip = "How strong the noise is taken to be: 0.5 removes less, 2 removes more"
        self.sigma = self.addNumber(form, "Sigma:", 0.0, 1e9, 0.0)
        self.sigma.toolTip = "Standard deviation of the noise, in the units of the volume"
        self.sigma.specialValueText = "found in the volume"
        self.program = ctk.ctkPathLineEdit()
        self.program.filters = ctk.ctkPathLineEdit.Files
        self.program.currentPath = qt.QSettings().value(PROGRAM_SETTING) or shutil.which("nlmeans") or ""
        self.program.toolTip = "The program nlmeans of the Python environment where nlmeans is installed"
        form.addRow("Program:", self.program)

        self.button = qt.QPushButton("Denoise")
        self.bar = qt.QProgressBar()
        self.bar.setRange(0, 100)
        self.said = qt.QLabel()
        self.said.wordWrap = True
        for part in (self.button, self.bar, self.said):
            self.layout.addWidget(part)
        self.layout.addStretch(1)
        self.timer = qt.QTimer()
        self.timer.setInterval(INTERVAL)
        self.timer.connect("timeout()", self.look)
        self.button.connect("clicked()", self.startOrCancel)

    def cleanup(self):
        """End the run when the module goes away."""
        self.timer.stop()
        if self.run is not None:
            self.run.close()

    def addSection(self, title):
        section = ctk.ctkCollapsibleButton()
        section.text = title
        self.layout.addWidget(section)
        return qt.QFormLayout(section)

    def addVolume(self, form, title, toolTip, new=False):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.addEnabled = selector.renameEnabled = selector.noneEnabled = new
        selector.removeEnabled = False
        selector.setMRMLScene(slicer.mrmlScene)
        selector.toolTip = toolTip
        form.addRow(title, selector)
        return selector

    def addChoice(self, form, title, names):
        box = qt.QComboBox()
        box.addItems(list(names))
        form.addRow(title, box)
        return box

    def addNumber(self, form, title, least, most, value):
        box = qt.QDoubleSpinBox()
        box.setRange(least, most)
        box.decimals = 2
        box.value = value
        form.addRow(title, box)
        return box

    def startOrCancel(self):
        if self.run is not None:
            self.run.cancel()
            return
        volume = self.input.currentNode()
        if volume is None:
            self.said.text = "Choose an input volume first."
            return
        sigma = self.sigma.value if self.sigma.value > 0 else None
        choices = Choices(self.method.currentText, self.noise.currentText, self.strength.value, sigma)
        program = self.program.currentPath or "nlmeans"
        try:
            self.run = self.logic.start(program, volume, choices)
        except RunError as error:
            self.said.text = str(error)
            return
        qt.QSettings().setValue(PROGRAM_SETTING, program)
        self.volume, self.chosen = volume, self.output.currentNode()
        self.button.text, self.said.text = "Cancel", ""
        self.timer.start()

    def newOutput(self):
        """Return a new volume for the result, which the form then shows as chosen."""
        name = slicer.mrmlScene.GenerateUniqueName(f"{self.volume.GetName()} denoised")
        output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        self.output.setCurrentNode(output)
        return output

    def look(self):
        """Show how far the run is, and its result once it has ended."""
        self.bar.value = round(100 * self.run.progress)
        if self.run.running:
            return
        self.timer.stop()
        run, self.run = self.run, None
        self.button.text = "Denoise"
        with run:
            try:
                result = run.result()
            except RunError as error:
                self.said.text, self.bar.value = str(error), 0
                return
            output = self.chosen or self.newOutput()
            self.logic.put(result, self.volume, output)
        self.said.text, self.bar.value = "\n".join(run.summary + run.messages), 100
        slicer.util.setSliceViewerLayers(background=output)


class NonLocalMeansTest(ScriptedLoadableModuleTest):
    """Slicer's own test of the module, on a sample; it needs the network and the program nlmeans in the search path."""

    def runTest(self):
        import SampleData

        slicer.mrmlScene.Clear()
        volume = SampleData.SampleDataLogic().downloadMRHead()
        output = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "denoised")
        logic = NonLocalMeansLogic()
        program = qt.QSettings().value(PROGRAM_SETTING) or shutil.which("nlmeans")
        assert program, "put the program nlmeans into the search path"
        with logic.start(program, volume, Choices("classic")) as run:
            logic.put(run.result(), volume, output)
        before, after = (slicer.util.arrayFromVolume(node).astype(float) for node in (volume, output))
        assert before.shape == after.shape
        assert 0 < abs(after - before).mean() < 0.2 * before.std()
